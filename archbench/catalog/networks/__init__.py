"""Networks that neither torchvision nor timm carries, or carries differently, written from their papers.

In every file but `layers`, a public function that needs no argument builds a network. It is named as the catalogue's
key and takes `num_classes`, `in_channels` and `head` as far as the network has them, then its own options; its
docstring says what it was written from and where it departs from that.
"""
