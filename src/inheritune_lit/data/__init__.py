"""Token shards and the data module that serves them to litGPT."""
