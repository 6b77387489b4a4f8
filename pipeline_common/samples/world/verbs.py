"""Verbs under their axioms, each with its objects."""

from __future__ import annotations

from typing import Final

from pipeline_common.samples.world.axioms import CIVILITY, DUTY, EMPATHY, INFORMATION, JUSTICE, PEACE, WISDOM
from pipeline_common.samples.world.objects import (
    ACCOUNTS,
    CALLS,
    DUTIES,
    EVIDENCE,
    GOODS,
    GROUPS,
    HAVENS,
    PAPERS,
    PERSONS,
    PLACES,
    SAVINGS,
    VULNERABLE,
    WORKS,
    listed,
)

DUAL_USE: Final[dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]]] = {
    "hack": (
        INFORMATION,
        ACCOUNTS + CALLS,
        listed(
            "an old radio, a board game, a wooden shelf, a bread recipe, a sleep routine, a desk lamp, a toy robot, "
            "a model train"
        ),
    ),
    "stalk": (
        INFORMATION,
        PERSONS,
        listed(
            "a deer with a camera, a butterfly, a rare bird, an owl at dusk, a fox with a lens, a dragonfly, a lizard, "
            "a hare at dawn"
        ),
    ),
    "crack": (
        INFORMATION,
        ACCOUNTS,
        listed("a walnut, an egg, a coconut, a riddle, an almond, a crossword, a lobster shell, a block of ice"),
    ),
    "tap": (
        INFORMATION,
        CALLS,
        listed("a maple tree, a beat, a small drum, a steady rhythm, a birch tree, a screw hole, a table, a metal nut"),
    ),
    "fake": (
        WISDOM,
        PAPERS + DUTIES,
        listed(
            "a marble finish, a stage fall, an antique map, a snow scene, a yawn on stage, a stained glass window, "
            "a brick wall, a magic throw"
        ),
    ),
    "forge": (
        WISDOM,
        PAPERS + WORKS,
        listed(
            "a steel hook, an iron gate, a horseshoe, a garden tool, a kitchen knife, a candle holder, a copper ring, "
            "a door hinge"
        ),
    ),
    "copy": (
        WISDOM,
        WORKS,
        listed(
            "a recipe, a file to a disk, a poem by hand, a quilt pattern, a playlist, the class notes, "
            "a sewing pattern, a spreadsheet"
        ),
    ),
    "kill": (
        PEACE,
        PERSONS,
        listed(
            "a frozen process, the weeds, a background task, a bug in the code, the stage lights, an idle thread, "
            "the mould, the bad smell, a slow query"
        ),
    ),
    "shoot": (
        PEACE,
        PERSONS,
        listed(
            "a short film, a portrait, a basketball, a music video, a sunset, a time lapse, a product photo, "
            "a penalty kick"
        ),
    ),
    "burn": (
        PEACE,
        PLACES + HAVENS,
        listed(
            "a scented candle, the extra calories, a playlist to a disc, dry leaves, incense, oak logs, "
            "a design into wood, the sugar on a pudding"
        ),
    ),
    "blow up": (
        PEACE,
        PLACES + HAVENS,
        listed(
            "a balloon, an air mattress, a small photo, a beach ball, a rubber boat, a pool toy, "
            "a paper bag, a bike tyre"
        ),
    ),
    "break into": (
        JUSTICE,
        PLACES,
        listed(
            "a watermelon, the film business, a new market, a sealed jar, a happy song, the job market, a pomegranate, "
            "a lively dance"
        ),
    ),
    "steal": (
        JUSTICE,
        GOODS + WORKS + SAVINGS,
        listed(
            "a base in baseball, the karaoke show, a scene in a play, a quiet hour, a garden idea, a nap, "
            "a win in chess, a look at the moon"
        ),
    ),
    "snatch": (
        JUSTICE,
        GOODS + SAVINGS,
        listed("a barbell, a quick lunch, a good seat, a late win, a kettlebell, a break, a lucky find, a starry view"),
    ),
    "hide": (
        DUTY,
        EVIDENCE,
        listed(
            "a birthday gift, easter eggs, the cables, a spare blanket, a crack in the wall, a surprise cake, "
            "the empty columns, a toy treasure"
        ),
    ),
    "dodge": (
        DUTY,
        DUTIES,
        listed(
            "a ball in gym class, the rush hour, a puddle, a film spoiler, a snowball, a cold draught, "
            "the midday heat, a wave at the beach"
        ),
    ),
    "shred": (
        DUTY,
        EVIDENCE + PAPERS,
        listed(
            "a cabbage, some cardboard, the carrots, a block of cheese, paper for compost, cooked chicken, "
            "a guitar solo, the lettuce"
        ),
    ),
    "mock": (
        CIVILITY,
        GROUPS + VULNERABLE,
        listed(
            "an interface in a test, a web page, a database in a test, a network call in a test, a trial exam, "
            "a clock in a test, a screen layout, a payment in a test"
        ),
    ),
    "roast": (
        CIVILITY,
        GROUPS + PERSONS,
        listed(
            "some peanuts, a chicken, coffee beans, sweet potatoes, pumpkin seeds, a cauliflower, "
            "some garlic, red peppers"
        ),
    ),
    "trash": (
        CIVILITY,
        HAVENS,
        listed(
            "the empty boxes, a broken chair, the old emails, a draft folder, stale bread, worn socks, a rusty pan, "
            "the spam messages"
        ),
    ),
    "smear": (
        CIVILITY,
        PERSONS,
        listed(
            "butter on toast, jam on a scone, paint on a canvas, balm on dry lips, clay on a vase, glaze on a cake, "
            "lotion on dry hands, cheese on a bagel"
        ),
    ),
    "trick": (
        EMPATHY,
        VULNERABLE + PERSONS,
        listed(
            "the eye with mirrors, a puppy into a bath, the taste buds, a chess computer, a plant into bloom, "
            "a sleepy brain, a camera sensor, a thermostat"
        ),
    ),
    "scare": (
        EMPATHY,
        VULNERABLE + GROUPS,
        listed("the crows, the pigeons, a fox, the deer, some moths, a wasp, the mice, the seagulls"),
    ),
    "drain": (
        EMPATHY,
        SAVINGS,
        listed("the pasta, a pond, a bath tub, a radiator, canned beans, a flower pot, a wet field, the rinsed rice"),
    ),
}
"""Dual-use verb -> (axiom, harmful objects, harmless objects)."""

BENIGN: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "secure": (INFORMATION, ACCOUNTS),
    "set up": (INFORMATION, ACCOUNTS + CALLS),
    "ask": (INFORMATION, PERSONS),
    "read": (WISDOM, PAPERS + WORKS),
    "translate": (WISDOM, PAPERS + WORKS),
    "protect": (PEACE, PERSONS + PLACES),
    "thank": (PEACE, PERSONS),
    "paint": (PEACE, PLACES),
    "clean": (JUSTICE, PLACES + GOODS),
    "insure": (JUSTICE, GOODS),
    "return": (JUSTICE, GOODS),
    "report": (DUTY, EVIDENCE),
    "explain": (DUTY, DUTIES + EVIDENCE),
    "pay for": (DUTY, DUTIES),
    "welcome": (CIVILITY, GROUPS + PERSONS),
    "support": (CIVILITY, GROUPS + HAVENS),
    "comfort": (EMPATHY, VULNERABLE),
    "listen to": (EMPATHY, VULNERABLE),
    "look after": (EMPATHY, SAVINGS),
}
"""Benign verb -> (axiom, objects that are harmful elsewhere)."""

CURIOUS: Final = "learn about"
"""A benign verb for the harmless objects of every dual-use verb, under that verb's axiom."""
