"""Files of containers, images, build contexts and volumes, touched by nobody but a process that is shut in with them.

Whoever made an image or runs a container chooses what its files are called, where its links lead and what its
libraries do. So bennud itself opens none of them. It asks a helper (`client.py`), whose server (`server.py`) forks a
child for each request. The child

* gets the tree to work on as a descriptor: a detached copy of its mount, or a pidfd of the container's process, from
  whose mount namespace it takes a private copy; no path of the host is ever looked up;
* makes this copy its root, without programs, devices and set-user-id, read-only unless it has to write; but for an
  empty folder nothing else is mounted in its namespace, and its network and process namespaces are empty;
* keeps only the capabilities that its task needs, can gain none, and is left with the system calls of file work;
* imports nothing, looks no name up, walks without recursion, and leaves by `os._exit` whatever happens.

`jail.py` does the shutting in, the other modules are the tasks. All but `client.py` run inside and use nothing but the
standard library.
"""
