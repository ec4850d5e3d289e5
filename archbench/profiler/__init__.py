"""Where one step of one cell spends its time and its memory: the worker's side of `archbench profile`."""
