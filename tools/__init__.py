"""Scripts for the developers and for borrowed machines; nothing of them is installed."""
