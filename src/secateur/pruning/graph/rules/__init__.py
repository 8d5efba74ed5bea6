"""What each ATen operator does to channels: a few lines an operator, by subject; every file here is found by itself."""
