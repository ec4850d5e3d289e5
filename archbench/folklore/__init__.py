"""What tutorials and papers say about these networks, beside what is counted, measured, trained and published.

`claim` reads `claims.yaml`, `formula` the expressions that judge, `sources` finds the figures, `judge` puts them
together; `experiments` is what needs torch, and loaded only where a claim asks for it.
"""
