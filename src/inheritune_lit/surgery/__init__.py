"""`inheritune surgery`: shorter checkpoints out of a reference's blocks, and the starts to compare them with."""
