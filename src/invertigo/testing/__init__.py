"""Checks that hold an attack, a defense or a domain to its contract, for those in this package and everybody else's.

    from invertigo.testing import check_attack
    def test_my_attack(): check_attack(MyAttack(iterations=50))

One test for each check, so that a failure names what is wrong:

    @pytest.mark.parametrize("check", attack_checks())
    def test_my_attack(check): check(MyAttack(iterations=50))
"""

from invertigo.testing.attacks import attack_checks, check_attack
from invertigo.testing.cases import Case, easy_case
from invertigo.testing.contract import ContractError
from invertigo.testing.defenses import Client, check_defense, defense_checks, easy_client
from invertigo.testing.domains import check_domain, domain_checks

__all__ = [
    "Case",
    "Client",
    "ContractError",
    "attack_checks",
    "check_attack",
    "check_defense",
    "check_domain",
    "defense_checks",
    "domain_checks",
    "easy_case",
    "easy_client",
]
