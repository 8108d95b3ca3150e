"""Values as Go's standard library and Docker's go-units write and read them; Docker's API is written in Go. Pure."""
