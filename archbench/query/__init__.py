"""The where-language: conditions over columns, with units, as `pick`, `list` and a suite's decisions take them."""
