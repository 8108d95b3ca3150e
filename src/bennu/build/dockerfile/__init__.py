"""Dockerfiles: PURE. Text in; stages of typed statements with their lines out, or an error with its lines.

`lines.py` joins continued lines and takes up heredocs, `words.py` splits one line, `parse.py` makes statements of them,
`expansion.py` puts in variables. Whatever a stranger writes ends soon: sizes and depths are bounded, and no pattern is
matched by going back.
"""
