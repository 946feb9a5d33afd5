"""The contracts find out who breaks a promise, and say what to mend."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

KINDS = {
    "quantizers": "QuantizerContract",
    "adapters": "AdapterContract",
    "tokenizers": "TokenizerContract",
    "sources": "ModelSourceContract",
    "exporters": "ExporterContract",
    "initializers": "InitializerContract",
    "objectives": "ObjectiveContract",
    "metrics": "MetricContract",
}

BROKEN = {
    "quantizers:BoundThatLies": ("no_weight_is_off_by_more_than_the_declared_bound", "error_bound is 0.01"),
    "quantizers:AcceptsNan": ("what_is_no_number_is_refused", "ValueError for .* holds nan; it accepted"),
    "quantizers:ForgivesLeftOvers": (
        "a_state_with_a_tensor_too_few_or_too_many_is_refused",
        "'left_over'; it accepted",
    ),
    "quantizers:KeepsTheMemory": ("the_given_weight_is_neither_changed_nor_kept", "shares memory .*: clone it"),
    "quantizers:LearnsTheWeight": ("gradients_reach_the_input_and_never_the_weight", "weight must be Parameter"),
    "quantizers:LoadsTorchToBeListed": (
        "listing_the_plugin_and_judging_its_fields_loads_nothing_heavy",
        "broken.quantizers:FieldsBesideTorch loads torch.*in a module of its own",
    ),
    "quantizers:HasAFieldWithoutWords": ("every_field_is_described_and_has_a_schema", "give bits a Field"),
    "quantizers:IgnoresUnknownFields": ("an_unknown_field_is_refused", "WordlessFields must refuse .* it accepted it"),
    "quantizers:CountsAsFloat32": (
        "as_many_bytes_are_stored_as_the_forecast_says",
        r"says 4 for \[1, 1\] in torch.bfloat16; nbytes is 2",
    ),
    "quantizers:AdoptsAnything": (
        "what_is_stored_in_a_format_of_others_is_not_taken_over",
        "nobody has defined: look at stored.kind",
    ),
    "adapters:MergesOtherwise": ("merging_computes_what_forward_computes[graftkit:nf4]", "differs from forward"),
    "adapters:StartsElsewhere": ("it_starts_as_the_frozen_weight_alone[graftkit:none]", "right after attach"),
    "adapters:DrawsByItself": ("one_seed_gives_one_start_and_another_seed_another[graftkit:none]", "global random"),
    "adapters:LoadsHalf": ("a_state_that_does_not_fit_is_refused_and_changes_nothing[graftkit:none]", "took over"),
    "adapters:CannotBeDisabled": (
        "disabled_it_computes_what_the_frozen_weight_computes[graftkit:none]",
        "enabled = False it computes something else",
    ),
    "adapters:AddsTheBiasToo": (
        "merging_computes_what_forward_computes[graftkit:none]",
        "with a bias, which the layer itself adds",
    ),
    "adapters:ScalesTheRateOfNothing": (
        "learning_rates_are_scaled_of_what_is_trained_alone[graftkit:none]",
        "names lora_C, but lora_A, lora_B are trained",
    ),
    "adapters:ScalesTheRateToNothing": (
        "learning_rates_are_scaled_of_what_is_trained_alone[graftkit:none]",
        "positive, finite numbers, not lora_A: 0.0",
    ),
    "adapters:CountsHalf": (
        "as_many_parameters_are_trained_as_the_forecast_says[graftkit:none]",
        r"says 16 for \[1, 1\]; 32 are trained",
    ),
    "adapters:TakesWhatItRefuses": (
        "a_layer_that_its_fields_refuse_is_not_adapted[graftkit:none]",
        r"refuses \[1, 1\], for which attach must raise ValueError; it accepted it",
    ),
    "adapters:MergesRowsAsColumns": ("on_an_embedding_it_maps_ids_to_merged_rows", "size of tensor"),
    "adapters:TakesEmbeddingsAllTheSame": (
        "on_an_embedding_it_maps_ids_to_merged_rows",
        "refuses an embedding, for which attach must raise ValueError; it accepted it",
    ),
    "adapters:ReplacesInSecret": (
        "another_frozen_weight_is_made_of_layer_and_seed_alone[graftkit:none]",
        "it must say so with replace_frozen",
    ),
    "adapters:KeepsTheStartToItself": (
        "its_state_does_without_the_original_weight[graftkit:none]",
        "does not hold what the start took from original",
    ),
    "adapters:StartsByChance": ("its_start_follows_from_what_it_sees_alone", "draws from torch's global random state"),
    "adapters:StartsOnItsOwn": ("its_start_follows_from_what_it_sees_alone", "other inputs give the same start"),
    "adapters:StartsWithAnotherRank": (
        "its_start_fits_what_is_attached_with_its_options",
        r"gives lora_A \[3, 70\]; attached with its options it is \[16, 70\]",
    ),
    "adapters:StartsFromNothing": ("too_few_inputs_are_refused", "must raise ValueError .*; it accepted it"),
    "tokenizers:LeaksSpecials": ("user_text_never_becomes_a_special_token", "gives the special ids"),
    "tokenizers:LosesOneCharacter": ("every_character_comes_back_as_declared", "comes back as '\\?"),
    "tokenizers:ShowsHalfCharacters": ("a_stream_is_the_text_at_every_cut", "hold bytes back until"),
    "tokenizers:HashesWithASeed": ("every_process_gives_the_same_ids", "PYTHONHASHSEED=0 the fingerprint is another"),
    "tokenizers:SavesTheOldTemplate": ("it_carries_another_chat_template", "is saved in huggingface as .the base's"),
    "tokenizers:LosesTheTemplate": ("extending_keeps_the_chat_template", "extended, its chat template .* becomes"),
    "tokenizers:ForgetsUses": ("the_plan_counts_what_the_tokenizers_do", "uses are not as often"),
    "tokenizers:ChangesOldTexts": ("a_text_without_new_tokens_is_cut_as_before", "becomes other ids than before"),
    "tokenizers:RenumbersTokens": ("extending_moves_no_id", "stand for something else than before"),
    "sources:HoldsEverything": ("one_tensor_is_in_memory_at_a_time", "still holds \\d+ tensors"),
    "sources:ReadsEverythingForOneTensor": ("a_tensor_by_its_name_needs_no_other", "makes [\\d,]+ bytes for"),
    "sources:StreamsToOneTensor": ("a_tensor_by_its_name_needs_no_other", "read that tensor alone"),
    "sources:GivesOneTensorInAnotherType": (
        "a_tensor_by_its_name_is_what_read_yields",
        "it is torch.float16 .*, not torch.float32",
    ),
    "sources:RaisesKeyErrorForATensor": ("a_tensor_of_an_unknown_name_is_a_model_error", "it raised KeyError"),
    "sources:AcceptsEverything": ("it_accepts_what_it_opens_and_leaves_the_rest_to_others", "accepts.. is not False"),
    "sources:RaisesWhateverComes": ("a_model_that_is_not_there_is_a_model_error", "it raised FileNotFoundError"),
    "sources:ImportsTorchToOpen": ("opening_reads_headers_only_and_loads_no_torch", "loads torch: import them in read"),
    "exporters:WritesZeros": ("what_it_loads_again_is_what_was_trained[llama]", "logits that are off by"),
    "exporters:WritesZerosAgain": ("a_fresh_process_proves_it", "something else than what was trained"),
    "exporters:WritesBesideItsFolder": ("it_writes_into_its_folder_alone", "changed started/log.txt, outside"),
    "exporters:ChangesTheModel": ("the_trained_model_is_left_as_it_was", "lora_B of the model that it was given"),
    "exporters:WritesTheTime": ("exporting_twice_writes_the_same_bytes", "another when.txt"),
    "exporters:AsksForWeights": (
        "it_refuses_with_a_sentence_and_not_everything",
        "before a weight is loaded, .* no attribute 'adapted'",
    ),
    "exporters:ReadsNothing": ("its_logits_come_from_its_files", "without reading its export"),
    "exporters:ForgetsTheTemplate": (
        "what_it_loads_besides_weights_is_what_was_trained_with[llama-None]",
        "chat template: none is loaded",
    ),
    "exporters:MergesByItself": (
        "it_merges_onto_what_its_merged_tensors_are_of[requantized]",
        "logits that are off by",
    ),
    "exporters:MergesOntoSomethingElse": (
        "it_merges_onto_what_its_merged_tensors_are_of[original]",
        "merge_onto is 'merged': a MergeBase",
    ),
    "exporters:BlindTolerance": ("its_tolerance_tells_the_trained_model_from_the_base", "a share of the largest logit"),
    "metrics:FailsOnNoJson": ("every_answer_has_a_finite_score", "JSONDecodeError"),
    "metrics:DividesByLength": ("every_answer_has_a_finite_score", "score.. of '' is nan, not a finite number"),
    "metrics:RemembersAnswers": (
        "one_answer_always_has_the_same_score",
        "in another order, an answer has another score",
    ),
    "metrics:ChecksNothing": (
        "a_record_passes_its_check_where_it_can_be_scored",
        r"'' expected: check.. takes it, score.. refuses it: .*nothing is expected",
    ),
    "metrics:ComparesNevertheless": (
        "one_that_needs_no_expected_answer_looks_at_none",
        "the score of '' depends on the expected answer",
    ),
    "metrics:CountsErrors": ("the_expected_answer_is_worth_no_less_than_any_other", "the expected answer -?0"),
    "initializers:ReturnsSixteenBits": ("every_new_token_gets_a_row[extended]", "rows are torch.bfloat16"),
    "initializers:DividesByNothing": (
        "whatever_stood_for_a_token_it_gets_a_row[extended]",
        r"rows \[0\] hold NaN .*parts are \[\(\)\]",
    ),
    "initializers:StacksNothing": ("no_new_token_is_no_row[extended]", "expects a non-empty TensorList"),
    "initializers:NeedsATextAtLeast": ("it_does_without_texts_and_without_kept_tokens[extended]", "StopIteration"),
    "initializers:DrawsRows": ("one_request_always_gives_the_same_rows[extended]", "torch's global random state"),
    "initializers:OrdersAsItHappens": ("every_process_gives_the_same_rows", "PYTHONHASHSEED=1 the rows are others"),
    "initializers:FollowsTheDefaultType": ("torchs_default_type_changes_nothing[extended]", "bfloat16 the rows are"),
    "initializers:CentresTheMatrix": ("what_it_is_given_stays_as_it_is[extended]", "changes the matrix"),
    "initializers:SharesTheMemory": ("rows_have_memory_of_their_own[extended]", "share memory .*: clone them"),
    "initializers:HangsOnTheMatrix": ("a_matrix_that_learns_gives_plain_rows_and_gets_no_gradient[extended]", "detach"),
    "objectives:TakesTheMeanItself": ("every_example_has_a_loss[2]", r"returned \[\] for 2 examples"),
    "objectives:IsInfinite": ("losses_and_gradients_stay_finite[0.0]", "where scores are about 0.0"),
    "objectives:LearnsNothing": ("there_is_something_to_learn", "do not depend on the scores"),
    "objectives:ClimbsUp": (
        "a_step_down_the_gradient_lowers_the_loss",
        "a small step down the gradient takes the loss",
    ),
    "objectives:LooksAtItsNeighbours": ("an_examples_loss_is_its_own", "say minimizes = 'step'"),
    "objectives:CountsFromTheFirst": ("the_order_of_examples_changes_nothing", "in another order"),
    "objectives:IsNoLikelihood": ("likelihood_is_what_it_says", "is not the negative log-likelihood"),
    "objectives:TellsTheMean": ("metrics_are_numbers_of_examples", r"is \[\] for 5 examples"),
    "objectives:ChangesTheScores": ("what_it_is_given_stays_as_it_is", "changes the scores"),
    "objectives:WeighsByNegativeNumbers": ("weights_of_labels_are_numbers", "a number above 0 is due"),
    "objectives:WeighsTwice": (
        "losses_are_multiplied_by_the_weights_of_labels",
        "does not multiply by the label_weights once",
    ),
    "objectives:LeavesWeightsOut": ("losses_are_multiplied_by_the_weights_of_labels", "leaves out the label_weights"),
    "objectives:PrefersTheWorst": ("advantages_compare_answers", "has a smaller advantage"),
    "objectives:LearnsTheWorst": ("likelier_answers_have_the_larger_advantage", "learns what is worth less"),
    "objectives:DrawsNoise": ("what_it_is_given_stays_as_it_is", "torch's global random state"),
    "objectives:TakesMeansOfTokens": ("means_over_tokens_are_of_sums", "is no sum over tokens"),
    "objectives:NeverAsksForTheReference": ("every_example_has_a_loss[1]", "uses_reference = True"),
}
"""Provider in `broken/` -> the test that finds it out, and what that says."""


def written_by_the_author() -> str:
    """One contract a provider, each the one line that it takes."""
    lines = [f"from graftkit.testing import {', '.join(KINDS.values())}\n"]
    for target in BROKEN:
        kind, _, name = target.partition(":")
        lines.append(f'\nclass Test{name}({KINDS[kind]}):\n    provider = "broken.{target}"\n')
    return "\n".join(lines)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What the one test said of each provider; pytest runs once, as its author would run it."""
    folder = tmp_path_factory.mktemp("author")
    (folder / "test_mine.py").write_text(written_by_the_author())
    wanted = [f"test_mine.py::Test{target.partition(':')[2]}::test_{test}" for target, (test, _) in BROKEN.items()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=report.xml", *wanted]
    places = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": places}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    found = {}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        failure = next(iter([*case.iter("failure"), *case.iter("error")]), None)
        said = "passed" if failure is None else failure.attrib["message"]
        found[case.attrib["classname"].rpartition("Test")[2]] = said
    return found


@pytest.mark.parametrize("target", BROKEN)
def test_a_broken_promise_is_found_and_named(outcomes: Mapping[str, str], target: str) -> None:
    said = outcomes[target.partition(":")[2]]
    assert re.search(BROKEN[target][1], said), said
