"""Training small networks for the sake of their curves: does depth help, and what lets it? `archbench train-probe`.

`settings` says what is trained, on which images and how, `loop` trains one network (torch), `probe` trains them all,
several at once, and keeps what they gave.
"""
