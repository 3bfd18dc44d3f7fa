"""What the speakers of the sample corpus say: short everyday sentences, written for it.

The shared sentences say nothing about the emotion and are spoken with every label. The words that
carry emotion recur within their list, so that a text model can learn them from a small corpus.
Pairs that the engine runs together into one word ("in the", "I am") are avoided: every word has its
own times.
"""

from __future__ import annotations

from collections.abc import Mapping

SHARED: tuple[str, ...] = (
    "The train leaves at four this afternoon.",
    "I put your letter next to that lamp.",
    "She will be here within ten minutes.",
    "Two cars are standing behind our house.",
    "We moved our meeting to next Tuesday.",
    "He talks to that man at the door.",
    "The shop at the corner closes at six.",
    "They painted another wall last week.",
    "My brother works near the station now.",
    "You can leave both keys with my neighbour.",
    "Somebody put a blue bag under the table.",
    "The doctor comes back next Monday.",
    "She bought bread and milk after work.",
    "The water needs five minutes to boil.",
    "They live behind the old market.",
    "You wrote this number at the bottom.",
)

EMOTIONAL: Mapping[str, tuple[str, ...]] = {
    "anger": (
        "I'm so angry, stop lying to me.",
        "He makes me furious, I hate this.",
        "Stop shouting, you stupid fool.",
        "I hate your stupid excuses.",
        "She lied again, and I'm furious.",
        "You make me angry every single time.",
        "Shut up and stop blaming me.",
        "I hate those lying cheats.",
        "That stupid insult makes me furious.",
        "Get out, you stupid liar.",
        "We're angry, they cheated again.",
        "Stop it, I hate your shouting.",
    ),
    "happiness": (
        "I'm so happy, this is wonderful.",
        "We love it, what great news.",
        "She smiled, and I love her smile.",
        "What a wonderful, happy day.",
        "This great party makes me happy.",
        "I love your wonderful present.",
        "We won, I'm so glad and happy.",
        "He laughed with joy and smiled.",
        "Great news, they love each other.",
        "The happy children laughed all day.",
        "What joy, this is a great surprise.",
        "You look wonderful when you smile.",
    ),
    "sadness": (
        "I'm so sad, and I miss her.",
        "He died alone, and we cried.",
        "She lost her mother last winter.",
        "We miss him, it hurts every day.",
        "I feel lonely and sad today.",
        "All hope is lost, she cried.",
        "My old dog died, I miss him.",
        "He cried all night, alone and sad.",
        "They lost everything, even hope.",
        "It hurts, she's so lonely.",
        "She died, and nobody cried.",
        "I lost my friend, and it hurts.",
    ),
    "fear": (
        "I'm so afraid, please help me.",
        "Run, we're all in danger here.",
        "She's scared, please don't hurt me.",
        "Help, somebody wants to kill us.",
        "Hide quickly, it's a dangerous man.",
        "He has a knife, run and hide.",
        "I'm scared, that man follows us.",
        "Please help, they want to kill me.",
        "We're afraid, this place scares us.",
        "Danger, run before he sees you.",
        "Hide, I heard a scream upstairs.",
        "She's afraid of his knife.",
    ),
}
