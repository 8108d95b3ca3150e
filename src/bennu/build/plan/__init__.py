"""Plans: PURE. A Dockerfile and what is asked of it in; the images it needs, then a graph and an image's config out.

    file = read_file(source, options)              a Dockerfile that is right so far
    while missing := needed_images(file, known):   what its bases are; an ONBUILD of theirs may need more
        …
    plan = make_plan(file, known)

`stages.py` knows which stage stands on which, `planner.py` walks the statements of those that are needed, `draft.py`
writes configuration and history, `copies.py` and `commands.py` make the nodes of COPY/ADD and RUN.
"""
