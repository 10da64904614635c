"""The network: one file per stage of the paper, in the order in which data flows."""
