"""Results as something to read: content is made once, free of any format (`content`), and rendered.

`report` makes and writes a run's report; a further format is a function from `Report` to text, and a line in its
`FORMATS`. A table on the terminal needs neither pandas nor plots.
"""
