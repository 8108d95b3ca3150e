"""How the subject of a certificate is shown."""

from bennu.tls import show_subject


def test_a_subject_is_one_line_in_which_no_value_looks_like_several() -> None:
    alice = {"subject": ((("organizationName", "Ops"),), (("commonName", "alice"),))}
    assert show_subject(alice) == "O=Ops, CN=alice"
    mallory = {"subject": ((("commonName", "mallory, O=Ops\n\\"),),)}
    assert show_subject(mallory) == r"CN=mallory\, O=Ops \\"
    assert show_subject({}) == ""
