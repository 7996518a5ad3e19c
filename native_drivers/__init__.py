"""Driver logic written in Python, one folder per ESX driver; the first ones come with their own issue."""
