"""Network namespaces, and the interfaces, addresses, routes and sysctls in them, through netlink and /proc."""
