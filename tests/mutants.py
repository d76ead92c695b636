"""uv run python -m tests.mutants [--only NAME] [--timeout SECONDS]

Shows that the tests find faults: makes one at a time in a copy of this checkout, each a change of one line, and runs
the test that must fail then. The faults were chosen from the code alone, before the tests were read. Run by hand: it
takes about a quarter of an hour. tests/test_mutants.py checks that the list still fits the code.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.paths import ROOT

TIMEOUT_S = 60.0  # for one test, with the start of Spark where it needs it
COPIED = ("recspark", "tests", "benchmarks", "conf", "jobs", "pyproject.toml")
LINKED = ("data",)  # large, and only read
FAILED = 1  # pytest's exit code where a test failed; others say that it could not run at all


@dataclass(frozen=True)
class Mutant:
    """A fault: `old`, which occurs once in `file`, becomes `new`. `test`: the node id of the test that must fail."""

    name: str
    file: str
    old: str
    new: str
    test: str


WHOLE_NIGHT = "tests/jobs/test_whole_night.py::test_the_night_is_near_the_oracle"

# fmt: off
MUTANTS = (
    # -- what a date knows: windows, labels, histories
    Mutant("leak_events_of_run_date", "recspark/warehouse/store.py",
           "self.read(table).where(F.col(c.EVENT_DATE) < F.lit(end))",
           "self.read(table).where(F.col(c.EVENT_DATE) <= F.lit(end))",
           "tests/warehouse/test_store.py::test_events_are_read_in_half_open_days"),
    Mutant("raw_rows_of_run_date_accepted", "recspark/sources/events.py",
           "F.to_date(c.EVENT_TIME) >= F.lit(run_date), LATER", "F.to_date(c.EVENT_TIME) > F.lit(run_date), LATER",
           "tests/stages/test_interactions.py::test_every_row_is_counted_exactly_once"),
    Mutant("label_window_a_day_early", "recspark/stages/training_examples.py",
           "store.events(INTERACTIONS, as_of, end)", "store.events(INTERACTIONS, as_of - timedelta(days=1), end)",
           "tests/stages/test_training_examples.py::test_a_window_has_the_events_of_its_seven_days"),
    Mutant("window_not_closed", "recspark/windows.py",
           "last = run_date - timedelta(days=label_days)", "last = run_date - timedelta(days=label_days - 1)",
           "tests/test_windows.py::test_a_window_whose_last_day_is_the_run_date_is_still_open"),
    Mutant("history_includes_midnight", "recspark/tables/histories.py",
           "lambda time: time < F.lit(float(as_of_day(day)))", "lambda time: time <= F.lit(float(as_of_day(day)))",
           "tests/tables/test_histories.py::test_an_event_at_midnight_is_of_the_day_that_begins"),
    Mutant("evaluated_copy_sees_test_window", "recspark/stages/ranker/neural.py",
           "older = examples[judged(examples, config.model_metrics.num_windows) :]", "older = examples[1:]",
           "tests/stages/ranker/test_neural.py::test_the_evaluated_ranker_sees_none_of_the_windows_that_modes_are_judged_on"),
    # -- rows: joins, counts, numbers
    Mutant("join_doubles_examples", "recspark/tables/training_examples.py",
           "with_rate(hits.select(user).distinct(),", "with_rate(hits.select(user),",
           "tests/tables/test_training_examples.py::test_a_user_with_two_positives_has_each_example_once"),
    Mutant("join_doubles_items", "recspark/tables/items.py",
           "events.groupBy(c.ITEM_ID).agg(F.min(c.EVENT_DATE).alias(FIRST_EVENT))",
           "events.select(c.ITEM_ID, F.col(c.EVENT_DATE).alias(FIRST_EVENT)).distinct()",
           "tests/tables/test_items.py::test_first_seen_is_the_earliest_date_known"),
    Mutant("rejected_rows_dropped", "recspark/stages/interactions.py",
           "bad = parsed.where(~F.col(STATE).isin(OK, LATER))", 'bad = parsed.where(F.col(STATE).startswith("null"))',
           "tests/stages/test_interactions.py::test_every_row_is_counted_exactly_once"),
    Mutant("duplicates_counted_as_merged", "recspark/sources/events.py",
           'F.count("*").alias(DISTINCT)', "F.sum(COPIES).alias(DISTINCT)",
           "tests/stages/test_interactions.py::test_same_key_is_summed_and_copies_are_not"),
    Mutant("index_number_reused", "recspark/tables/index.py",
           "start = start if last is None else last + 1", "start = start if last is None else last",
           "tests/tables/test_index.py::test_old_numbers_stay_and_new_ones_follow"),
    Mutant("sampled_rows_without_weight", "recspark/tables/training_examples.py",
           '(1.0 / of_list).alias("inverse")', 'F.lit(1.0).alias("inverse")',
           "tests/tables/test_training_examples.py::test_users_without_a_positive_are_sampled_with_their_weight"),
    Mutant("poor_scenarios_are_sampled_too", "recspark/tables/training_examples.py",
           "if counts[scenario] > level}", "}",
           "tests/tables/test_training_examples.py::"
           "test_of_many_lists_a_sample_is_learnt_from_and_poor_scenarios_are_whole"),
    Mutant("users_all_ignored", "recspark/tables/histories.py",
           'if rules.rule(name).users == "all"]', 'if rules.default.users == "all"]',
           "tests/tables/test_histories.py::test_eligible_in_own_or_in_all"),
    # -- features and retrievers
    Mutant("another_users_features", "recspark/features.py",
           "users.features[candidates.user_pos],", "users.features[candidates.user_pos - 1],",
           "tests/test_features.py::test_one_user_alone_has_the_same_features"),
    Mutant("another_users_history", "recspark/training/ranking/scoring.py",
           "history = book.block(user[first],", "history = book.block(np.sort(user[first]),",
           "tests/training/ranking/test_scoring.py::test_shared_vectors_and_histories_are_each_rows_own"),
    Mutant("another_items_content", "recspark/models/layers.py",
           "content_UC[known] = content_IC[codes_U[known] - 1]", "content_UC[known] = content_IC[codes_U[known] - 2]",
           "tests/models/test_layers.py::test_look_up_embeds_each_item_once"),
    Mutant("all_time_counts_for_recent", "recspark/stages/retriever/item_stats.py",
           "recent = positive & (age <= days) if days else positive", "recent = positive",
           "tests/stages/retriever/test_item_stats.py::test_counts"),
    Mutant("all_time_popularity", "recspark/models/retrievers/popular.py",
           "decayed = weight * exponential_decay(as_of_days - time, half_life_days)", "decayed = weight",
           "tests/stages/retriever/test_item_stats.py::test_decayed_net_counts"),
    Mutant("a_robot_counts_as_a_crowd", "recspark/models/retrievers/popular.py",
           "np.clip(np.bincount(pair, decayed, minlength=num_pairs), -most, most)",
           "np.bincount(pair, decayed, minlength=num_pairs)",
           "tests/models/retrievers/test_popular.py::test_a_user_counts_once"),
    Mutant("decay_with_wrong_sign", "recspark/windows.py",
           "np.exp2(-np.asarray(age_days, np.float64) / half_life_days)",
           "np.exp2(np.asarray(age_days, np.float64) / half_life_days)",
           "tests/test_windows.py::test_older_windows_count_less"),
    Mutant("returns_ignored", "recspark/models/retrievers/affinity.py",
           "net = _sum_events(weight.astype(np.float64),", "net = _sum_events(np.abs(weight.astype(np.float64)),",
           "tests/models/retrievers/test_affinity.py::test_a_returned_purchase_is_seen_but_not_positive"),
    Mutant("seen_filter_off", "recspark/stages/candidates/blocks.py",
           "seen_UI = scores.seen_UI[users] if hide else None", "seen_UI = None",
           "tests/stages/candidates/test_blocks.py::test_no_retriever_gives_items_that_the_user_has_seen"),
    Mutant("where_ignored", "recspark/stages/candidates/blocks.py",
           "return items if rule.where is None else items & open_rules(item_rules).allowed[rule.where]",
           "return items",
           "tests/stages/candidates/test_blocks.py::test_items_of_a_scenario_by_its_rule"),
    Mutant("ties_by_row_in_top_k", "recspark/models/topk.py",
           "first, column_at = num_items - 1 - ranks.astype(np.int64), np.argsort(ranks)[::-1]",
           "first, column_at = num_items - 1 - np.arange(num_items), np.arange(num_items)[::-1]",
           "tests/models/test_topk.py::test_equals_sorting"),
    # -- the order of lists, and their publication
    Mutant("random_ranking", "recspark/stages/lists.py",
           "return np.asarray(np.lexsort((tie_rank, -final, list_idx)))",
           "return np.asarray(np.lexsort((np.random.default_rng(0).random(len(final)), list_idx)))",
           "tests/stages/test_lists.py::test_rows_without_a_score_of_the_retriever_follow_by_popularity"),
    Mutant("ties_not_by_item_id", "recspark/stages/lists.py",
           "return np.asarray(np.lexsort((tie_rank, -final, list_idx)))",
           "return np.asarray(np.lexsort((-final, list_idx)))",
           "tests/stages/test_lists.py::test_equal_scores_go_by_item_id"),
    Mutant("repeats_before_new_items", "recspark/stages/lists.py",
           "_move_below(list_idx, num_lists, final, repeat, ~repeat)",
           "_move_below(list_idx, num_lists, final, ~repeat, repeat)",
           "tests/stages/test_lists.py::test_repeats_come_last_in_their_own_order"),
    Mutant("nan_score_as_zero", "recspark/stages/lists.py",
           "final = scores.astype(np.float64)", "final = np.nan_to_num(scores.astype(np.float64))",
           "tests/stages/test_lists.py::test_nan_of_a_trained_model_is_not_covered_up"),
    Mutant("at_most_off_by_one", "recspark/stages/lists.py",
           "beyond = (code >= 0) & (before >= most)", "beyond = (code >= 0) & (before > most)",
           "tests/stages/test_lists.py::test_items_over_the_limit_come_last_in_their_own_order"),
    Mutant("one_row_too_few", "recspark/stages/recommendations.py",
           "at, place = order[position < k], position[position < k]",
           "at, place = order[position < k - 1], position[position < k - 1]",
           "tests/stages/test_top_of_block.py::test_the_top_of_a_block_by_hand"),
    Mutant("score_of_another_mode", "recspark/stages/recommendations.py",
           'F.when(F.col(c.MODEL) == mode, F.col(f"score_{mode}"))',
           'F.when(F.col(c.MODEL) == mode, F.col(f"score_{used[0]}"))',
           "tests/stages/test_recommendations.py::"
           "test_a_trained_mode_orders_its_scenarios_and_partitions_change_nothing"),
    Mutant("published_without_check", "recspark/stages/recommendations.py",
           "if checked.failures:", "if not checked.num_rows:",
           "tests/stages/test_recommendations.py::test_a_failed_check_holds_the_night"),
    Mutant("published_runs_not_repaired", "recspark/pipeline.py",
           "recommendations.repair(store)", "pass",
           "tests/test_pipeline.py::test_publications_are_repaired_first_and_all_is_done_under_the_lease"),
    # -- the gate, and the figures that it reads
    Mutant("gate_sign", "recspark/gate.py",
           "mean = (moments.sums[:, mode] - moments.sums[s, incumbent_S]) / count",
           "mean = (moments.sums[s, incumbent_S] - moments.sums[:, mode]) / count",
           "tests/test_gate.py::test_a_better_ranker_is_published_also_in_a_scenario_without_users"),
    Mutant("gate_takes_any_gain", "recspark/gate.py",
           "elif found.mean[at] - sure * found.sd[at] > 0:", "elif found.mean[at] > 0:",
           "tests/test_gate.py::test_two_agreeing_users_prove_nothing"),
    Mutant("gate_forgets_how_many_modes_it_tries", "recspark/gate.py",
           "return np.asarray(draws.max(axis=1) /", "return np.asarray(draws[:, 0] /",
           "tests/test_gate.py::test_the_factor_grows_with_modes_that_differ_and_not_with_copies"),
    Mutant("gate_follows_against_own_users", "recspark/gate.py",
           "follows = sure & (gain[of_all].probability >= MIN_PROBABILITY) & (gain[of_all].own_upper >= 0)",
           "follows = sure & (gain[of_all].probability >= MIN_PROBABILITY)",
           "tests/test_gate.py::test_a_scenario_that_loses_keeps_its_own"),
    Mutant("gate_needs_own_evidence", "recspark/gate.py",
           "if found.mode == incumbents[s] and follows[s] and of_all != incumbents[s]:",
           "if found.mode == incumbents[s] and follows[s] and of_all != incumbents[s] and count > 1000:",
           "tests/test_gate.py::test_poor_scenarios_follow_a_gain_that_all_share"),
    Mutant("users_without_list_left_out", "recspark/stages/model_metrics/evaluation.py",
           "active = np.flatnonzero(block.relevant > 0)",
           "active = np.flatnonzero((block.relevant > 0) & (np.diff(block.offsets) > 0))",
           "tests/stages/model_metrics/test_evaluation.py::test_figures_by_hand"),
    Mutant("lists_counted_as_users", "recspark/stages/model_metrics/evaluation.py",
           "np.array([len(np.unique(user_idx[pick]))])", "np.array([len(user_idx[pick])])",
           "tests/stages/model_metrics/test_evaluation.py::test_figures_by_hand"),
    Mutant("recall_over_found_items", "recspark/metrics.py",
           "hits_at_k(relevance, offsets, num_relevant, k) / np.maximum(num_relevant, 1)",
           "hits_at_k(relevance, offsets, num_relevant, k) / np.maximum(_sums(relevance, offsets), 1)",
           "tests/test_metrics.py::test_recall_counts_what_was_not_retrieved"),
    # -- the rankers and what they read
    Mutant("padding_row_counts", "recspark/training/feed/feed.py",
           "weights[-1] = 0.0", "weights[-1] = 1.0",
           "tests/training/feed/test_feed.py::test_ranks_share_the_batches_of_one_rank"),
    Mutant("last_batch_dropped", "recspark/training/feed/feed.py",
           "self.num_steps = math.ceil(self.num_rows / batch_size)",
           "self.num_steps = max(1, self.num_rows // batch_size)",
           "tests/training/feed/test_feed.py::test_every_row_once_and_equal_steps"),
    Mutant("two_ranks_read_the_same_rows", "recspark/training/feed/lanes.py",
           "if (first * lanes + lane) % world_size == rank", "if (first * lanes + lane) % world_size == 0",
           "tests/training/feed/test_feed.py::test_every_row_once_and_equal_steps"),
    Mutant("scenario_towers_mixed_up", "recspark/models/towers.py",
           "torch.addmm(biases[tower], part_BX, weights[tower]) for tower, part_BX in parts",
           "torch.addmm(biases[tower], part_BX, weights[-tower]) for tower, part_BX in parts",
           "tests/models/test_towers.py::test_values_and_gradients_are_those_of_all_towers"),
    Mutant("rows_back_in_wrong_order", "recspark/models/rankers/star.py",
           "return sorted_BT[groups.place_B] + auxiliary_BT", "return sorted_BT[groups.order_B] + auxiliary_BT",
           "tests/training/ranking/test_scoring.py::test_shared_vectors_and_histories_are_each_rows_own[star]"),
    Mutant("ranker_of_another_scenario", "recspark/stages/ranker/scorer.py",
           "_ranker_of(str(self.rankers), mode, int(target))",
           "_ranker_of(str(self.rankers), mode, int(scenario[0]))",
           "tests/stages/ranker/test_scorer.py::test_a_row_is_scored_by_the_ranker_of_its_scenario"),
    Mutant("stops_by_training_users", "recspark/training/ranking/fit.py",
           "RowFilter(c.FOLD, frozenset({STOP_FOLD}), keep=stops)",
           "RowFilter(c.FOLD, frozenset({STOP_FOLD}), keep=False)",
           "tests/training/ranking/test_fit.py::test_the_users_that_stop_a_training_are_not_trained_on"),
    Mutant("trees_stop_by_training_rows", "recspark/models/rankers/gbdt.py",
           "trained = useful & ~valid", "trained = useful",
           "tests/models/rankers/test_gbdt.py::test_lists_without_positives_change_nothing"),
    Mutant("trees_learn_another_label", "recspark/stages/ranker/boosted.py",
           "label_column(config.training_examples.tasks[0].name)",
           "label_column(config.training_examples.tasks[-1].name)",
           "tests/stages/ranker/test_stage.py::test_gbdt_publishes_with_the_rounds_of_the_evaluated_one"),
    Mutant("int8_step_of_wrong_axis", "recspark/training/ranking/quantise.py",
           "inputs = -2 if weight.ndim == 3 else -1", "inputs = -1",
           "tests/training/ranking/test_quantise.py::test_a_tower_has_a_step_a_column"),
    Mutant("resumed_training_reads_rows_again", "recspark/training/ranking/loop.py",
           "batches = feed.batches(progress.epoch, progress.step)", "batches = feed.batches(progress.epoch)",
           "tests/training/ranking/test_loop.py::test_a_killed_training_goes_on_as_if_it_had_not_been[8]"),
    # -- content
    Mutant("embeddings_in_another_order", "recspark/encoders/text.py",
           "vectors[[row for row, _ in chunk]], budget =", "vectors[sorted(row for row, _ in chunk)], budget =",
           "tests/encoders/test_text.py::test_same_vector_as_transformers_called_directly"),
    Mutant("pca_fitted_every_night", "recspark/stages/item_embeddings/compact.py",
           "if not model_folder.exists(path):", "if one.pca is not None:",
           "tests/stages/item_embeddings/test_stage.py::test_smaller_vectors_lie_in_one_space_night_after_night"),
    Mutant("pca_not_applied", "recspark/stages/item_embeddings/compact.py",
           "_compacted(projection, one.storage)", "_compacted(None, one.storage)",
           "tests/stages/item_embeddings/test_stage.py::test_smaller_vectors_lie_in_one_space_night_after_night"),
    Mutant("pairs_across_users", "recspark/stages/text_adapter.py",
           "Window.partitionBy(c.USER_ID).orderBy(", "Window.orderBy(",
           "tests/stages/test_text_adapter.py::test_pairs_are_consecutive_different_items_within_the_days"),
    # -- artefacts, and one run at a time
    Mutant("stale_table_taken_as_fresh", "recspark/warehouse/artifacts.py",
           "== store.token(table)", "is not None",
           "tests/warehouse/test_artifacts.py::test_a_confirmed_table_is_fresh_until_it_changes"),
    Mutant("fingerprint_ignores_a_key", "recspark/warehouse/artifacts.py",
           'Artifact(("retriever", "scenarios", _EVENTS, "seed")', 'Artifact(("retriever", "scenarios", "seed")',
           "tests/warehouse/test_artifacts.py::test_a_key_moves_the_artefacts_that_read_it"),
    Mutant("imported_code_not_hashed", "recspark/warehouse/code.py",
           "waiting += found[name].modules", "pass",
           "tests/warehouse/test_code.py::test_what_computes_moves_the_hash"),
    Mutant("lease_expires_while_beating", "recspark/warehouse/lease.py",
           "        if now != before:\n            return False\n", "",
           "tests/warehouse/test_lease.py::test_a_holder_is_known_by_its_heartbeats_not_by_its_clock"),
    Mutant("lease_of_two_at_once", "recspark/warehouse/lease_files.py",
           "            if not others:\n                return None", "            return None",
           "tests/warehouse/test_lease_files.py::test_a_late_rival_never_takes_a_lease_that_is_held"),
    # -- who else writes, and what a crash leaves
    Mutant("lost_lease_commits", "recspark/warehouse/store.py",
           "        self._require_lease()\n        self.spark.conf.set(", "        self.spark.conf.set(",
           "tests/warehouse/test_store.py::test_a_run_that_lost_its_lease_commits_nothing_more"),
    Mutant("taken_over_without_fence", "recspark/warehouse/store.py",
           "if self._held is not None and self.exists(table):", "if False:",
           "tests/warehouse/test_store.py::test_a_write_that_began_before_the_lease_was_lost_fails_at_its_commit"),
    Mutant("commits_of_others_ignored", "recspark/warehouse/state.py",
           "stamps = dict(state.stamps) if found else {}", "stamps = dict(state.stamps)",
           "tests/warehouse/test_state.py::test_a_commit_of_others_ends_all_stamps_whatever_its_metadata"),
    Mutant("cleaned_log_forgets", "recspark/warehouse/store.py",
           "self._states[table.noun] = stored if stored is not None and is_same else TableState(table_id)",
           "self._states[table.noun] = TableState(table_id)",
           "tests/warehouse/test_store.py::test_a_table_whose_log_was_cleaned_is_still_known"),
    Mutant("numbers_given_twice_unnoticed", "recspark/tables/index.py",
           'known and str(before) == known["hash"]', "known",
           "tests/tables/test_index.py::test_numbers_that_others_took_away_are_noticed"),
    Mutant("half_a_file_is_a_model", "recspark/model_folder.py",
           'return all(sizes.get(name) == file["bytes"] for name, file in files.items())', "return True",
           "tests/training/test_checkpoint.py::test_a_folder_with_half_a_file_is_no_model"),
    Mutant("manifest_removed_last", "recspark/model_folder.py",
           'if fs.exists(f"{root}/{MANIFEST}"):', "if False:",
           "tests/training/test_checkpoint.py::test_a_removal_that_is_killed_leaves_no_model"),
    Mutant("withdrawn_lists_stay_published", "recspark/tables/published_runs.py",
           "marked = withdraw(store, taken_back) if taken_back else []", "marked = []",
           "tests/stages/test_recommendations.py::test_killed_while_a_night_is_taken_back"),
    # -- whole nights
    Mutant("night_lists_ignore_scores", "recspark/stages/lists.py",
           "np.lexsort((tie_rank, -final, list_idx))", "np.lexsort((tie_rank, tie_rank, list_idx))", WHOLE_NIGHT),
    Mutant("night_wrong_gate", "recspark/gate.py",
           "mean = (moments.sums[:, mode] - moments.sums[s, incumbent_S]) / count",
           "mean = (moments.sums[s, incumbent_S] - moments.sums[:, mode]) / count", WHOLE_NIGHT),
    Mutant("night_days_leak", "recspark/tables/histories.py",
           "lambda time: time < F.lit(float(as_of_day(day)))", "lambda time: time < F.lit(float(as_of_day(day) + 14))",
           WHOLE_NIGHT),
    Mutant("night_rows_of_another_user", "recspark/stages/candidates/blocks.py",
           "batch.column(c.USER_IDX).take(pa.array(user_pos)),",
           "batch.column(c.USER_IDX).take(pa.array(user_pos.max(initial=0) - user_pos)),", WHOLE_NIGHT),
    # -- killed runs, mixed rows, features by YAML
    Mutant("killed_night_keeps_old_counts", "recspark/stages/interactions.py",
           "indexed and counted and artifacts", "indexed and artifacts",
           "tests/stages/test_interactions.py::test_days_are_counted_though_a_run_ended_after_the_commit_of_their_events"),
    Mutant("facts_of_a_killed_run_stay", "recspark/stages/recommendations.py",
           "if not night_statistics.has_lists(store, run_date):", "if False:",
           "tests/stages/test_recommendations.py::test_killed_before_what_follows_the_commit_of_the_lists"),
    Mutant("rows_of_lists_lie_mixed", "recspark/stages/model_metrics/evaluation.py",
           "if (list_idx[1:] < list_idx[:-1]).any():", "if False:",
           "tests/stages/model_metrics/test_evaluation.py::test_rows_of_a_users_lists_may_lie_mixed"),
    Mutant("features_of_tonight", "recspark/tables/given_features.py",
           "F.col(c.KNOWN_FROM) < at", "F.col(c.KNOWN_FROM) <= at",
           "tests/stages/test_given_features.py::test_each_date_has_what_was_known_before_it"),
    Mutant("a_text_of_one_user_is_known", "recspark/given_features.py",
           "counts[order] >= MIN_IDS", "counts[order] >= 1",
           "tests/test_given_features.py::test_a_text_is_known_by_the_ids_that_have_it_not_by_their_rows"),
    Mutant("erased_numbers_stay", "recspark/given_features.py",
           "numbers[mine] = np.nan", "pass",
           "tests/test_given_features.py::test_erased_users_have_nothing_and_the_others_all"),
    Mutant("erased_features_stay", "recspark/stages/erase.py",
           "(given_features.erase_users, ", "(lambda *_: 0, ",
           "tests/stages/test_given_features.py::test_an_erased_user_has_no_features_in_old_folders_and_new_ones"),
    Mutant("trees_see_no_given_features", "recspark/stages/ranker/boosted.py",
           "given = _given(examples, key)", "given = None",
           "tests/stages/ranker/test_stage.py::test_gbdt_learns_from_given_features_and_says_what_they_are_worth"),
    Mutant("network_sees_no_texts", "recspark/models/given_encoder.py",
           "mean_BGD.flatten(1)", "0 * mean_BGD.flatten(1)",
           "tests/training/ranking/test_scoring.py::test_a_ranker_learns_from_given_features"),
    Mutant("jars_that_are_gone", "recspark/session.py",
           'all(os.path.exists(name.removeprefix("file://"))', 'all(bool(name.removeprefix("file://"))',
           "tests/test_session.py::test_jars_of_an_earlier_start_are_found_unless_one_is_gone"),
)
# fmt: on


def copy_to(folder: Path) -> None:
    """The part of the checkout that tests need."""
    folder.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)


def run(copy: Path, tests: list[str], timeout: float) -> tuple[int | None, str]:
    """pytest's exit code, None after `timeout` seconds, and its output."""
    command = [sys.executable, "-m", "pytest", "-n0", "-q", "-x", "-p", "no:cacheprovider"]
    log = copy.parent / "output"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, f"--basetemp={copy.parent / 'tmp'}", *tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code: int | None = None
        try:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # Spark's processes too
            process.wait()
    return code, log.read_text(errors="replace")


def seconds(test: str, timeout: float) -> float:
    return timeout * (5 if test == WHOLE_NIGHT else 1)


def is_killed(copy: Path, mutant: Mutant, timeout: float) -> bool:
    """Make the fault, run its test, and put the file back."""
    file, began = copy / mutant.file, time.monotonic()
    text = file.read_text()
    assert text.count(mutant.old) == 1, mutant
    file.write_text(text.replace(mutant.old, mutant.new))
    try:
        code, output = run(copy, [mutant.test], seconds(mutant.test, timeout))
    finally:
        file.write_text(text)
    state = {0: "SURVIVED", None: "TIMEOUT", FAILED: "killed"}.get(code, f"EXIT {code}")
    reason = next((line[1:].strip() for line in output.splitlines() if line.startswith("E ")), "")
    print(f"{state:8} {mutant.name:34} {time.monotonic() - began:3.0f} s  {reason:.100}", flush=True)
    return code == FAILED


def main() -> int:
    parser = argparse.ArgumentParser(description="Do the tests find one-line faults?")
    parser.add_argument("--only", choices=[mutant.name for mutant in MUTANTS], metavar="NAME")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="seconds for each test")
    given = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if given.only in (None, mutant.name)]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        copy_to(copy)
        tests = sorted({mutant.test for mutant in chosen})
        code, output = run(copy, tests, sum(seconds(test, given.timeout) for test in tests))
        if code != 0:
            why = "took too long" if code is None else f"exit code {code}"
            print(f"{output[-3000:]}\nwithout a fault, the tests must pass: {why}")
            return 1
        print(f"without a fault, the tests of {len(chosen)} mutants pass", flush=True)
        killed = sum([is_killed(copy, mutant, given.timeout) for mutant in chosen])
    print(f"{killed} of {len(chosen)} killed")
    return 0 if killed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
