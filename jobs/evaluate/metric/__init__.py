"""The metric: pure functions on arrays, no model and no file.

Reading order: `indices` (formulas), `representation` (activations to one matrix), `gram` and `bootstrap` (uncertainty),
`geometry` (all scopes of one pair of models), `paired` (behaviour), `power` (what this n can show); beside the headline
`clusters`, `similarity`, `direction`, `probe` and `permutation`, put together in `diagnostics`; `layer_weights` learns
which layers count; `simulation` plants known answers and measures what the score says of them.
"""
