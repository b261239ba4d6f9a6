"""`inheritune prepare`: text into token shards."""
