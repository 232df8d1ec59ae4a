"""The right answers, one module a notebook: stop reading here if you want to find them yourself."""
