"""What tutorials and papers say about these networks, beside what is counted, measured, trained and published.

`claims` reads `claims.yaml` and judges, `formula` has the expressions, `sources` the figures, `asked` what a user
means; `experiments` is what needs torch, and loaded only where a claim asks for it.
"""
