"""Places: the gazetteer, the provider and its limits."""
