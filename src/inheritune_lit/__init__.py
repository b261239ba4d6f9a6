"""inheritune_lit: small base language models out of big ones, as a thin plugin over litGPT.

The method is Inheritune ("Pre-training Small Base LMs with Fewer Tokens", arXiv 2404.08634): take the first n blocks
of a reference model with its embeddings and head, then train that shorter model on little data.

Importing this package imports neither torch nor litGPT: commands that do not need them start at once.
"""

__version__ = "0.1.0"
