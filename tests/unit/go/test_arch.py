from bennu.go.arch import ARCHITECTURES, architecture


def test_architectures() -> None:
    assert architecture("x86_64") == "amd64"
    assert architecture("armv6l") == "arm"
    assert architecture("riscv64") == "riscv64"
    assert all(architecture(name) == name for name in ARCHITECTURES.values())
