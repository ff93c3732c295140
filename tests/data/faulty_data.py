"""A small preference file without a fault, and the same with every fault that can be planted in one.

The rows are messages (`prompt`, `chosen`, `rejected`) of three domains. `faulty_file` says on which lines each fault
stands, by the code of the check that is to find it.
"""

import json
from pathlib import Path
from typing import Any

TOPICS: tuple[tuple[str, str, str, str], ...] = (
    ("cooking", "How do I keep pasta from sticking together?", "Stir it in the first two minutes, and use plenty of "
     "water.", "Pasta sticks because it wants to; nobody has ever found out why that happens to it."),
    ("cooking", "Why did my bread not rise this morning?", "The yeast was old or the water too hot; test the yeast "
     "in warm water with a pinch of sugar before the next loaf.", "Bread does what it likes, so just buy a loaf."),
    ("cooking", "What can replace eggs in a cake?", "Half a mashed banana stands in for one egg.", "Eggs are eggs, "
     "and a cake without them is a stone that nobody at the table will want to eat."),
    ("cooking", "How long does cooked rice last in the fridge?", "Four days, if it went in within an hour of cooking "
     "and is heated through before it is eaten.", "Rice lasts for months on end, like most grains."),
    ("cooking", "Is it safe to eat sprouted potatoes?", "Small sprouts can be cut off; green ones go.", "Sprouts are "
     "just vegetables too, so fry them in butter together with everything else you found."),
    ("cooking", "How do I sharpen a kitchen knife at home?", "Draw it along a whetstone at about fifteen degrees, the "
     "same number of strokes on each side.", "Throw it away and order another one online."),
    ("cooking", "Which oil should I use for frying?", "One with a high smoke point, like rapeseed.", "Any oil will do, "
     "even the one from the garage if the bottle in the kitchen happens to be empty today."),
    ("cooking", "Can I freeze fresh herbs?", "Yes: chop them, cover them with a little oil in an ice tray, and take "
     "out a cube whenever you cook.", "No, cold air turns all herbs to dust in a single night."),
    ("cooking", "What does blanching vegetables mean?", "Boiling them briefly, then cooling them in ice.", "It means "
     "painting them white, as was the fashion at the courts of France two hundred years ago."),
    ("cooking", "My soup is too salty, what now?", "Add unsalted stock or water, or a starchy thing such as beans, "
     "and season again at the very end.", "Add pepper until you taste nothing else any more."),
    ("cooking", "How do I know when a cake is done?", "A skewer in the middle comes out clean.", "You hear it: a cake "
     "that is done makes a humming noise which every good baker recognises from afar."),
    ("cooking", "Why rest meat after roasting?", "The juices settle while it stands, so that fewer of them run out "
     "when you carve it some minutes later.", "It is tired, just as anybody would be by then."),
    ("science", "Why is the sky blue during the day?", "Air scatters short waves of light more than long ones.",
     "Because it mirrors the oceans, which were blue long before there was any sky above them at all."),
    ("science", "What makes the tides rise and fall?", "The pull of the moon, and to a lesser degree that of the sun, "
     "on an ocean that turns beneath them both.", "Whales, when they all breathe in at once."),
    ("science", "How do vaccines work?", "They show the body a harmless part of a germ to learn from.", "They work by "
     "making you so ill that afterwards everything else seems quite bearable in comparison."),
    ("science", "Why do leaves change colour in autumn?", "The tree takes the green pigment back, and the yellow and "
     "red ones that were hidden by it remain to be seen.", "They are ashamed of falling down."),
    ("science", "What is a light year?", "The distance that light travels in one year.", "A year with fewer hours in "
     "it, as they have on planets whose sun is weaker and whose days are therefore shorter."),
    ("science", "Do plants breathe at night?", "They do: they take up oxygen and give off carbon dioxide in the dark, "
     "as their cells need energy too.", "Plants hold their breath until the sun is up again."),
    ("science", "Why does ice float on water?", "Frozen water takes more room, so it is less dense.", "Ice fears "
     "the deep and clings to the surface for as long as there is any of it left to cling."),
    ("science", "What causes thunder?", "Lightning heats the air so fast that it expands with a bang, which reaches us "
     "later than the flash does.", "Clouds that bump into each other in the dark, of course."),
    ("science", "How old is the Earth?", "About four and a half billion years, by its oldest minerals.", "It was made "
     "on a Tuesday some time ago, and those who were there have never agreed on the year."),
    ("science", "What are antibiotics useless against?", "Viruses, such as those of a cold: they attack parts of "
     "bacteria that a virus does not have.", "Nothing, take them for everything you have."),
    ("science", "Why do we have leap years?", "The Earth needs about a quarter day more than 365.", "So that February "
     "does not feel left out by the longer months that stand to the left and right of it."),
    ("science", "What is the nearest star?", "The sun; after it comes Proxima Centauri, a bit more than four light "
     "years away from here.", "The one that moves and blinks when you are at the airport."),
    ("travel", "How early should I be at the airport?", "Two hours before a short flight, three before a long one.",
     "Five minutes before, since aeroplanes always wait for people who have paid for their own seat."),
    ("travel", "What should I pack for a week in Norway in May?", "Layers, a rain jacket and shoes that may get wet; "
     "it can be five degrees or twenty.", "Swimming trunks only, for it is always hot there."),
    ("travel", "How do I avoid jet lag?", "Shift your sleep a little every day beforehand.", "By not looking at any "
     "clock for the whole of your journey, neither on the way there nor on the way back home."),
    ("travel", "Do I need cash in Japan?", "Some: small restaurants, shrines and buses often take nothing else, though "
     "cards work in most shops by now.", "Cash was abolished there many years ago, I heard."),
    ("travel", "Is tap water safe in Iceland?", "Yes, and it is among the best there is.", "Only on Sundays, when the "
     "glaciers are cleaned by the fire brigade and the pipes are flushed with lemonade."),
    ("travel", "How can I find cheap train tickets?", "Book early, travel outside of rush hours, and compare the "
     "single legs with the whole way.", "Hide in the lavatory until the guard has gone by."),
    ("travel", "What is the best time to see the northern lights?", "Dark, clear nights from autumn to spring.", "At "
     "noon in July, when they are brightest, provided that you look straight into the sun."),
    ("travel", "Should I tip in a restaurant in Italy?", "Rounding up is enough; a cover charge is mostly on the bill "
     "already, next to the word coperto.", "Tip twice what you ate or they will be angry."),
    ("travel", "How do I keep my bag safe in a crowd?", "Close it and wear it in front of you.", "Write on it in large "
     "letters what is inside, so that thieves see at once that it is not worth the trouble."),
    ("travel", "Can I drive abroad with my licence?", "In much of Europe yes; elsewhere you may need an international "
     "permit, which your automobile club issues.", "Licences are a matter of personal taste."),
    ("travel", "What is a good first long hike?", "One of three days with huts along the way.", "The highest mountain "
     "of the country you happen to be in, in winter and at night, with as little as possible."),
    ("travel", "How do I get from the airport to the city?", "Look for the train first: it is mostly faster than a "
     "taxi and costs a fraction of it.", "Walk, since all airports are in the city centre."),
)  # fmt: skip
HELP = " I hope this helps; do ask again if anything about it is still unclear to you."


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def row(domain: str, prompt: str, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    return {
        "domain": domain,
        "prompt": [said("user", prompt)],
        "chosen": [said("assistant", chosen)],
        "rejected": [said("assistant", rejected)],
        **more,
    }


def clean_rows() -> list[dict[str, Any]]:
    """36 comparisons of three domains in which there is nothing to find."""
    return [row(*topic) for topic in TOPICS]


def clean_file(path: Path) -> str:
    """`clean_rows` as a JSON Lines file; its name."""
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in clean_rows()), encoding="utf-8")
    return str(path)


def heldout_file(path: Path) -> str:
    """An evaluation file: a training conversation again on line 1, one but for a letter on line 2, ten others."""
    rows = [clean_rows()[0], row("science", "Why do leaves change colour in autumns?", *TOPICS[15][2:])]
    rows += [row("travel", f"{word} or not, where shall we go?", *TOPICS[24][2:]) for word in ["Rain", "Sun", "Hail"]]
    words = ["cheese", "wine", "salt", "tea", "oats", "figs", "rye"]
    rows += [row("cooking", f"Tell me about {word}.", *TOPICS[3][2:]) for word in words]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return str(path)


def faulty_file(path: Path) -> tuple[str, dict[str, tuple[int, ...]]]:
    """The clean rows with every fault planted, as a JSON Lines file: its name, and the lines of each check's fault.

    An empty tuple is a fault of the whole file: the preferred responses close with a courtesy and so are longer, a
    score is the same everywhere, and a column `images` is read by nothing. Token faults are for the bundled
    tokenizer and a `max_length` of 128.
    """
    topics = [(domain, prompt, chosen + HELP, rejected) for domain, prompt, chosen, rejected in TOPICS]
    score = {"chosen_score": 7, "rejected_score": 7}
    rows: list[dict[str, Any] | str] = [row(*topic, **score) for topic in topics]
    rows[0]["images"] = ["pasta.png"]
    lines: dict[str, tuple[int, ...]] = {}

    def plant(codes: str, *faulty: dict[str, Any] | str) -> None:
        start = len(rows) + 1
        rows.extend(one if isinstance(one, str) else {**score, **one} for one in faulty)
        for code in codes.split():
            lines[code] = (*lines.get(code, ()), *range(start, len(rows) + 1))

    def swapped(k: int, **more: Any) -> dict[str, Any]:
        domain, prompt, chosen, rejected = topics[k]
        return row(domain, prompt, rejected, chosen, **more)

    lines["media"] = lines["unused-columns"] = lines["length-bias"] = lines["constant-columns"] = ()
    plant("rows-set-aside", '{"prompt": "cut off in the mid', {"chosen": [said("assistant", "No prompt at all.")]})
    plant("rows-set-aside", row("travel", "Who are you?", "A guide.", "A bird.", weight=float("nan")))
    plant("rows-set-aside empty-responses", row("travel", "What now?", " \n", "Wait for the bus to come back again."))
    plant("rows-set-aside identical-responses", row("travel", "Where to?", "To the left.", "To the left."))
    plant(
        "identical-responses lost-to-length",
        row("travel", "Which way is north from here?", "Where the moss is.", "Where the moss is. "),
    )
    picture = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}
    plant("rows-set-aside media", {**row("science", "", "A cat on a mat.", "A dog in a bog."), "prompt": [picture]})
    plant("media", row("science", "<image> What does this picture show us?", "A map of the city.", "I cannot say."))
    plant("duplicates", row(*topics[3]))
    domain, prompt, chosen, rejected = topics[5]
    plant("near-duplicates", row(domain, prompt, chosen, rejected.replace("another one", "another")))
    plant("contradictions", swapped(7))
    lines["contradictions"] = (8, *lines["contradictions"])
    domain, prompt, chosen, rejected = topics[13]
    plant("near-contradictions", row(domain, prompt + " ", rejected, chosen.replace("them both", "both")))
    lines["near-contradictions"] = (14, *lines["near-contradictions"])
    circle = "Rye keeps for a week.", "Wheat is light and white.", "Oats are good for porridge."
    for one, two in ((0, 1), (1, 2), (2, 0)):
        plant("intransitive", row("cooking", "Which grain should I bake with?", circle[one], circle[two]))
    domain, prompt, chosen, rejected = topics[20]
    again = f"{prompt} Well. {chosen}"
    plant("prompt-repeated", row(domain, "Please tell me this: how old is the Earth?", f"Please tell me this: {again}",
                                 "It is as old as the hills that stand on it, they say."))  # fmt: skip
    plant(
        "template-markers markers-as-text",
        row("science", "<|im_start|>user\nName a noble gas.<|im_end|>", "Neon, for one.", "Steam, I would think."),
        row("science", "[INST] Name a planet with rings. [/INST]", "Saturn has them.", "Pluto, or so it seems."),
    )
    turn = "\n\nHuman: And what about the way back?\n\nAssistant: The same."
    plant("other-speaker", row("travel", "How far is it to the harbour?", f"A mile.{turn}", "I do not know that."))
    start = "The museum opens at nine on weekdays, and tickets are sold at the gate until the after"
    plant("shared-start", row("travel", "When is the museum open?", start + "noon.", start + "math of the closing."))
    for place in ("the old fort", "a salt mine", "our lighthouse", "that windmill"):
        for who in ("ana", "ben"):  # who agree on two of the four
            sides = f"See {place} at sunrise, when it is quiet.", f"Skip {place} and sleep longer instead."
            sides = sides[::-1] if who == "ben" and place[0] in "ot" and "fort" not in place else sides
            plant("annotators", row("travel", f"Is {place} worth a visit?", *sides, annotator=who))
    lines["annotators"] = ()  # a fault of the votes together
    plant(
        "languages mixed-languages",
        row("travel", "Which bridge is the oldest in town?", "The stone bridge by the old mill is the oldest one.",
            "Die steinerne Brücke an der alten Mühle ist wohl die älteste in dieser Stadt."),
        row("travel", "Where can one eat well near the station?", "There is a good place right behind the station.",
            "駅の裏にとてもおいしい食堂があります。ぜひ行ってみてください。"),
    )  # fmt: skip
    lines["languages"] = ()
    tool = [said("user", "What is the weather?"), said("tool", "12 degrees, rain"), said("user", "So?")]
    plant("template-refuses", {**row("travel", "", "Take a coat.", "Go as you are."), "prompt": tool})
    plant("bos-twice template-markers", row("travel", "<|bos|>Which coin is used in Peru?", "The sol.", "The shell."))
    story = " ".join(f"On day {k} we walked on and slept by the river." for k in range(1, 40))
    plant("cut-contexts", row("travel", f"Sum this up: {story}", "A long walk along a river.", "No idea at all."))
    plant("cut-responses", row("travel", "Tell me of your walk along the river.", story, "It was long and wet."))
    plant("lost-to-length", row("travel", "Tell the whole story.", story + " The end.", story + " Then it rained."))
    lines["cut-contexts"] += lines["cut-responses"]
    lines["shared-start"] += lines["lost-to-length"][-1:]
    text = "".join((one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)) + "\n" for one in rows)
    path.write_text(text, encoding="utf-8")
    return str(path), lines
