"""What tutorials and papers say about these networks, beside what is counted, measured, trained and published.

`claim` reads `claims.yaml`, `formula` the expressions that judge, `sources` finds the figures, `judge` puts them
together; `structure` and `experiments` are what needs torch, and loaded only where a claim asks for them.
"""
