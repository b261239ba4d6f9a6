"""`inheritune surgery`: shorter checkpoints out of a source's blocks, and the starts to compare them with."""
