"""The Docker Engine API and Bennu's own below `/bennu/v1`.

`http/`: connections, bodies, queries, answers, streams, errors; knows no resource.
`shapes/`: the JSON of containers, images and services, for the routes that share it.
`routes/`: one module a resource. `app.py` puts them together.
"""
