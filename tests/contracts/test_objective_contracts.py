"""The built-in objectives keep the contract that everybody's do."""

from __future__ import annotations

from graftkit.testing import ObjectiveContract


class TestSft(ObjectiveContract):
    provider = "sft"


class TestDistill(ObjectiveContract):
    provider = "distill"


class TestDistillByTheTeacherAlone(ObjectiveContract):
    provider = "distill"
    options = {"teacher": "another", "alpha": 1.0, "beta": 1.0}


class TestDistillBetween(ObjectiveContract):
    provider = "distill"
    options = {"beta": 0.3, "top_k": 8, "temperature": 2.0}


class TestDpo(ObjectiveContract):
    provider = "dpo"


class TestDpoSmoothed(ObjectiveContract):
    provider = "graftkit:dpo"
    options = {"label_smoothing": 0.2, "nll_weight": 0.5}


class TestRobustDpo(ObjectiveContract):
    provider = "dpo"
    options = {"loss": "robust", "label_smoothing": 0.2}


class TestIpo(ObjectiveContract):
    provider = "dpo"
    options = {"loss": "ipo"}


class TestHinge(ObjectiveContract):
    provider = "dpo"
    options = {"loss": "hinge"}


class TestOrpo(ObjectiveContract):
    provider = "orpo"


class TestSimpo(ObjectiveContract):
    provider = "simpo"


class TestSimpoWithLikelihood(ObjectiveContract):
    provider = "simpo"
    options = {"nll_weight": 1.0, "gamma": 0.0}


class TestKto(ObjectiveContract):
    provider = "kto"
    options = {"wanted_weight": 1.5}


class TestGrpo(ObjectiveContract):
    provider = "grpo"


class TestGrpoByAnswer(ObjectiveContract):
    provider = "grpo"
    options = {"loss": "grpo", "scale_rewards": "batch", "group_size": 3}


class TestGrpoNearItsStart(ObjectiveContract):
    provider = "grpo"
    options = {"beta": 0.2, "temperature": 0.7}


class TestGrpoInSeveralSteps(ObjectiveContract):
    provider = "grpo"
    options = {"num_iterations": 3, "beta": 0.1, "delta": 1.5}


class TestDrGrpo(ObjectiveContract):
    provider = "grpo"
    options = {"loss": "dr_grpo", "scale_rewards": "none", "max_new_tokens": 7}


class TestClassification(ObjectiveContract):
    provider = "classification"


class TestReward(ObjectiveContract):
    provider = "reward"


class TestRewardWithMargin(ObjectiveContract):
    provider = "reward"
    options = {"margin": 0.5, "center": 0.01}


class TestMaskedLm(ObjectiveContract):
    provider = "masked-lm"


class TestWeightedClassification(ObjectiveContract):
    provider = "classification"
    options = {"class_weights": {"bad": 2.0}}


class TestBalancedClassification(ObjectiveContract):
    provider = "classification"
    options = {"class_weights": "balanced"}


class TestMultiLabelClassification(ObjectiveContract):
    provider = "multi-label-classification"


class TestWeightedMultiLabelClassification(ObjectiveContract):
    provider = "multi-label-classification"
    options = {"class_weights": {"bad": 2.0}}


class TestBalancedMultiLabelClassification(ObjectiveContract):
    provider = "multi-label-classification"
    options = {"class_weights": "balanced"}


class TestTokenClassification(ObjectiveContract):
    provider = "token-classification"


class TestWeightedTokenClassification(ObjectiveContract):
    provider = "token-classification"
    options = {"class_weights": {"B-PER": 2.0}}


class TestBalancedTokenClassification(ObjectiveContract):
    provider = "token-classification"
    options = {"class_weights": "balanced"}


class TestRegression(ObjectiveContract):
    provider = "regression"


class TestEmbedding(ObjectiveContract):
    provider = "embedding"


class TestMatryoshka(ObjectiveContract):
    provider = "embedding"
    options = {"dimensions": [4, 2], "temperature": 0.5}


class TestSimilarity(ObjectiveContract):
    provider = "similarity"


class TestSimilarityOfTheFirstNumbers(ObjectiveContract):
    provider = "similarity"
    options = {"dimensions": [4, 2], "temperature": 0.5}
