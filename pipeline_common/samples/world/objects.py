"""What the verbs are done to; most lists serve harmful and benign verbs alike."""

from __future__ import annotations

from typing import Final


def listed(text: str) -> tuple[str, ...]:
    """Split a comma-separated list into its trimmed items."""
    return tuple(item.strip() for item in text.split(","))


PERSONS: Final = listed(
    "a neighbour, the landlord, a classmate, the teacher, a stranger, the manager, a colleague, the nurse, a tourist, "
    "the cashier, a witness, the bus driver, a roommate, the mayor, a rival, the coach"
)
PLACES: Final = listed(
    "a house, the school, a shop, the bank, a church, the library, a warehouse, the town hall, a hospital, a museum, "
    "the pharmacy, an office, a mosque, the theatre"
)
GOODS: Final = listed(
    "a car, a bike, a wallet, a laptop, a watch, a purse, a camera, a necklace, a parcel, a motorbike, a winter coat, "
    "a silver spoon"
)
ACCOUNTS: Final = listed(
    "an email account, a bank account, a phone, a webcam, a password, a voting machine, a chat account, "
    "a payroll system, a hospital server, a school server, a doorbell camera, a credit card"
)
CALLS: Final = listed(
    "a phone call, the office line, a video call, the doctor line, a private chat, the radio of a guard, "
    "a family call, the lawyer line, a staff meeting, the police line"
)
PAPERS: Final = listed(
    "a diploma, a passport, a prescription, a sick note, an invoice, a signature, a driving licence, a contract, "
    "an exam paper, a reference letter, a birth certificate, a bank statement, a train pass, a last will"
)
WORKS: Final = listed(
    "an exam sheet, a student essay, a medical record, a client list, a ballot, an entry pass, a rival design, "
    "a house key, a paid novel, a guard badge, a thesis"
)
EVIDENCE: Final = listed(
    "the evidence, the missing money, a stolen car, the false receipts, the accident report, the unsafe test results, "
    "a data leak, the tax records, a bribe, the lost pension money, the safety records, a hit and run"
)
DUTIES: Final = listed(
    "the income tax, a court date, the child support, a safety check, an audit, the jury call, the import duty, "
    "a debt, a police stop, a fine, the alimony"
)
GROUPS: Final = listed(
    "immigrants, old people, disabled people, a religious minority, refugees, poor people, foreigners, deaf people, "
    "a homeless man, women at work, a gay couple, a blind man"
)
HAVENS: Final = listed(
    "a monastery, a synagogue, a refugee shelter, a temple, a care home, a war memorial, a village chapel, "
    "a women's shelter, a soup kitchen, a cemetery"
)
VULNERABLE: Final = listed(
    "a lonely widow, an old man, a shy boy, a grieving friend, a sick child, a lost tourist, an anxious girl, "
    "a tired mother, an orphan, a blind woman, a new pupil, a hospital patient"
)
SAVINGS: Final = listed(
    "the savings of a widow, the account of an orphan, a pension fund, the fund of a charity, a family inheritance, "
    "the wallet of an old man, a strike fund, the grant of a student, a rent deposit, the tips of a waiter"
)
