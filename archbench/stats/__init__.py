"""Statistics of arrays of floats; knows nothing of benchmarks.

What measuring needs (`intervals`, `sampling`) needs numpy alone; what comparing needs loads scipy when it is called.
"""
