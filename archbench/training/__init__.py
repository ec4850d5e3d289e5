"""Training small networks for the sake of their curves: does depth help, and what lets it? `archbench train-probe`.

`settings` says what is trained and how, `data` reads the images, `loop` trains one network (torch), `probe` trains them
all, several at once, and keeps what they gave.
"""
