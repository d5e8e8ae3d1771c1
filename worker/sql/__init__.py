"""SQL in other people's transactions and in our own: connections of several libraries, and the tables of inbox and outbox.

It imports no library before it is handed a connection of one.
"""
