"""`inheritune export`: a Hugging Face folder, reloaded and compared; and the way in for GPT-2."""
