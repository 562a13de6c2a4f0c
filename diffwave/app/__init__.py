"""A page in the browser to play with models: `rave app`."""
