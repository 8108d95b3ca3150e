"""Published ports: parsed, allocated, translated by one nftables table, proxied where the kernel cannot translate."""
