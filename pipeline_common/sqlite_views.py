"""Views that answer the common questions, for people who open `centralized.db` in a SQLite tool.

They exist in the exported file only: Postgres and the embedded results database hold nothing but the tables.
"""

from __future__ import annotations

from typing import Final

RUN_OVERVIEW: Final = """
CREATE VIEW run_overview AS
SELECT
  experiments.run_id,
  experiments.created_at,
  experiments.profile,
  experiments.base_model,
  experiments.dataset,
  experiments.prompts,
  verdict.status AS verdict,
  verdict.interpretation,
  refusals.base AS refused_unsafe_base_pct,
  refusals.tuned AS refused_unsafe_tuned_pct,
  over_refusals.base AS refused_safe_base_pct,
  over_refusals.tuned AS refused_safe_tuned_pct,
  gap.value AS refusal_gap_drop_pct,
  gap.value_low AS refusal_gap_drop_pct_low,
  gap.value_high AS refusal_gap_drop_pct_high,
  overall.f2_drop_pct,
  overall.f2_drop_pct_low,
  overall.f2_drop_pct_high,
  overall.base_aqi,
  overall.tuned_aqi,
  overall.delta_aqi,
  overall.n_safe,
  overall.n_unsafe,
  (SELECT max(step) FROM training_metrics
    WHERE training_metrics.run_id = experiments.run_id AND split = 'train') AS training_steps,
  (SELECT loss FROM training_metrics
    WHERE training_metrics.run_id = experiments.run_id AND split = 'train' ORDER BY step DESC LIMIT 1) AS train_loss,
  (SELECT loss FROM training_metrics
    WHERE training_metrics.run_id = experiments.run_id AND split = 'validation'
    ORDER BY step DESC LIMIT 1) AS validation_loss,
  (SELECT count(*) FROM stage_runs
    WHERE stage_runs.run_id = experiments.run_id AND state IN ('done', 'cached')) AS finished_stages,
  (SELECT round(sum((julianday(ended_at) - julianday(started_at)) * 86400), 1) FROM stage_runs
    WHERE stage_runs.run_id = experiments.run_id AND state = 'done') AS seconds_worked,
  (SELECT group_concat(stage || ': ' || coalesce(message, state), '; ') FROM stage_runs
    WHERE stage_runs.run_id = experiments.run_id AND state IN ('failed', 'stopped')) AS failure,
  experiments.code_commit
FROM experiments
LEFT JOIN evaluation_summary AS verdict ON verdict.run_id = experiments.run_id AND verdict.name = 'verdict'
LEFT JOIN evaluation_summary AS refusals
  ON refusals.run_id = experiments.run_id AND refusals.name = 'refusal_unsafe'
LEFT JOIN evaluation_summary AS over_refusals
  ON over_refusals.run_id = experiments.run_id AND over_refusals.name = 'over_refusal_safe'
LEFT JOIN evaluation_summary AS gap ON gap.run_id = experiments.run_id AND gap.name = 'refusal_gap'
LEFT JOIN aqi_scores AS overall ON overall.run_id = experiments.run_id AND overall.scope = 'overall'
ORDER BY experiments.created_at DESC, experiments.run_id
"""
"""One row per run, the newest first; what is not there yet is NULL."""

LATEST_AQI: Final = """
CREATE VIEW latest_aqi AS
SELECT
  ranked.base_model,
  ranked.dataset,
  ranked.run_id,
  ranked.created_at,
  aqi_scores.scope,
  aqi_scores.name,
  aqi_scores.n_safe,
  aqi_scores.n_unsafe,
  aqi_scores.base_aqi,
  aqi_scores.base_aqi_low,
  aqi_scores.base_aqi_high,
  aqi_scores.tuned_aqi,
  aqi_scores.tuned_aqi_low,
  aqi_scores.tuned_aqi_high,
  aqi_scores.delta_aqi,
  aqi_scores.delta_aqi_low,
  aqi_scores.delta_aqi_high,
  aqi_scores.f2_drop_pct,
  aqi_scores.f2_drop_pct_low,
  aqi_scores.f2_drop_pct_high,
  aqi_scores.status,
  aqi_scores.reason
FROM (
  SELECT
    experiments.*,
    row_number() OVER (
      PARTITION BY base_model, dataset ORDER BY created_at DESC, run_id DESC
    ) AS age
  FROM experiments
  WHERE run_id IN (SELECT run_id FROM aqi_scores)
) AS ranked
JOIN aqi_scores ON aqi_scores.run_id = ranked.run_id
WHERE ranked.age = 1 AND aqi_scores.scope <> 'layer'
ORDER BY
  ranked.created_at DESC,
  ranked.run_id,
  CASE aqi_scores.scope WHEN 'overall' THEN 0 WHEN 'overall_stratified' THEN 1 ELSE 2 END,
  aqi_scores.name
"""
"""Scores over all prompts and per axiom of the newest measured run of each base model and dataset."""

VIEWS: Final = {"run_overview": RUN_OVERVIEW.strip(), "latest_aqi": LATEST_AQI.strip()}
