"""Files for the engines that run shards, made from data by one template each."""
