"""The example fleet: handlers as a user writes them. They import the public API only."""
