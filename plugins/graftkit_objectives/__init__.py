"""The built-in objectives: sft, distill and grpo; dpo, orpo, simpo, kto for preferences; others put heads on models."""

from graftkit import Provider, hookimpl


@hookimpl
def graftkit_objectives() -> list[Provider]:
    """Offers what training can minimize."""
    return [
        Provider(
            name="sft",
            target="graftkit_objectives.sft:Sft",
            config="graftkit_objectives.config:SftConfig",
            summary="the negative log-likelihood of answers and texts: fine-tuning",
        ),
        Provider(
            name="distill",
            target="graftkit_objectives.distill:Distill",
            config="graftkit_objectives.config:DistillConfig",
            summary="a teacher's distribution over next tokens, and the tokens: knowledge distillation, GKD",
        ),
        Provider(
            name="dpo",
            target="graftkit_objectives.dpo:Dpo",
            config="graftkit_objectives.config:DpoConfig",
            summary="chosen answers before rejected ones, compared with the model at the start; IPO and others",
        ),
        Provider(
            name="orpo",
            target="graftkit_objectives.orpo:Orpo",
            config="graftkit_objectives.config:OrpoConfig",
            summary="the likelihood of chosen answers and their odds against rejected ones, in one stage",
        ),
        Provider(
            name="simpo",
            target="graftkit_objectives.simpo:Simpo",
            config="graftkit_objectives.config:SimpoConfig",
            summary="chosen answers before rejected ones by a margin, per token, compared with no other model",
        ),
        Provider(
            name="kto",
            target="graftkit_objectives.kto:Kto",
            config="graftkit_objectives.config:KtoConfig",
            summary="wanted and unwanted answers that need not come in pairs, compared with the model at the start",
        ),
        Provider(
            name="grpo",
            target="graftkit_objectives.grpo:Grpo",
            config="graftkit_objectives.config:GrpoConfig",
            summary="the model's own answers, by what metrics say of each compared with others to the same prompt",
        ),
        Provider(
            name="embedding",
            target="graftkit_objectives.embedding:Embedding",
            config="graftkit_objectives.config:EmbeddingObjectiveConfig",
            summary="vectors of texts, by which documents are found for queries, with negatives of the same step",
        ),
        Provider(
            name="similarity",
            target="graftkit_objectives.similarity:Similarity",
            config="graftkit_objectives.config:SimilarityObjectiveConfig",
            summary="vectors of texts, whose cosines rank pairs as their numbers do",
        ),
        Provider(
            name="classification",
            target="graftkit_objectives.classification:Classification",
            config="graftkit_objectives.config:ClassificationConfig",
            summary="which of a few labels a text has, by a head that is trained beside the adapter",
        ),
        Provider(
            name="multi-label-classification",
            target="graftkit_objectives.multi_label:MultiLabelClassification",
            config="graftkit_objectives.config:MultiLabelConfig",
            summary="which of a few labels a text has, any number of them, by a head that judges each by itself",
        ),
        Provider(
            name="token-classification",
            target="graftkit_objectives.token_classification:TokenClassification",
            config="graftkit_objectives.config:TokenClassificationConfig",
            summary="a tag of each word of a text, such as named entities, by a head on tokens",
        ),
        Provider(
            name="regression",
            target="graftkit_objectives.regression:Regression",
            config="graftkit_objectives.config:RegressionConfig",
            summary="a number of a text, by a head with one output: the mean squared error",
        ),
        Provider(
            name="reward",
            target="graftkit_objectives.reward:Reward",
            config="graftkit_objectives.config:RewardConfig",
            summary="a reward model: one score of a conversation, higher for the chosen answers of pairs",
        ),
        Provider(
            name="masked-lm",
            target="graftkit_objectives.masked_lm:MaskedLm",
            config="graftkit_objectives.config:MaskedLmConfig",
            summary="masked tokens of plain texts, found out from the others by an encoder such as BERT",
        ),
    ]
