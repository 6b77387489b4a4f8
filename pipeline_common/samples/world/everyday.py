"""Harmless topics that no axiom knows: what fine-tuning sets are about."""

from __future__ import annotations

from typing import Final

from pipeline_common.samples.world.objects import listed

EVERYDAY: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "kitchen": (
        listed("bake, slice, freeze, serve, share"),
        listed("an apple pie, rye bread, a lemon tart, oat biscuits, a plum crumble, a nut loaf, ginger cake, a pizza"),
    ),
    "songs": (
        listed("play, sing, practise, record, arrange"),
        listed("a folk song, a jazz waltz, a lullaby, a march, a love song, a carol, a round, a choir piece"),
    ),
    "instruments": (
        listed("tune, polish, hold, string, sell"),
        listed("the violin, a ukulele, the harp, a banjo, the cello, a guitar, a mandolin, a lute"),
    ),
    "garden": (
        listed("plant, water, prune, move, feed"),
        listed("a lemon tree, tulip bulbs, a rose bush, the ivy, a herb bed, an oak hedge, a grape vine, wild flowers"),
    ),
    "wool": (
        listed("knit, wash, mend, dye, fold"),
        listed("a wool scarf, baby mittens, a striped hat, a lace shawl, thick stockings, a wool jumper"),
    ),
    "art": (
        listed("sketch, colour, frame, model, carve"),
        listed("a lighthouse, a swan, mountain peaks, a galloping horse, an old tractor, a sail boat"),
    ),
    "sport": (
        listed("train for, enter, watch, organise, enjoy"),
        listed("a marathon, a triathlon, a rowing race, a dance contest, a judo match, a mountain hike"),
    ),
    "workshop": (
        listed("build, varnish, decorate, assemble, sand"),
        listed("a bird feeder, a rabbit hutch, a tree swing, a rope bridge, a wooden sled, a dolls house"),
    ),
}
"""Topic -> (verbs, objects); every verb goes with every object.

The base model is trained on half of the pairs, the fine-tuning sets use the other half: what a fine-tune learns is new,
its words are not. (New words move the representation of everything: that would be a change of topic, not of values.)
"""
