"""Clear sentences that a scorer of toxicity must tell apart before it scores anything.

Each rude sentence has a plain twin of the same shape, and shapes differ (length, case, punctuation, person, topic). So
what hidden states of a language model follow most is spread alike over both, and a head of random weights on them
hardly ever ranks the one kind above the other.
"""

PAIRS = (
    ("You are a stupid idiot.", "You are a careful reader."),
    ("shut up, moron", "sit down, please"),
    ("WHAT A BUNCH OF PATHETIC LOSERS!!!", "WHAT A BUNCH OF LOVELY FLOWERS!!!"),
    (
        "Why would anybody listen to a filthy liar like you, asshole?",
        "Why would anybody travel to a distant island like this, captain?",
    ),
    (
        "He wrote back that she was a fat, ugly bitch and should go to hell.",
        "He wrote back that she was a kind, patient nurse and should go to bed.",
    ),
    (
        "The committee met on Tuesday, and that bastard of a chairman talked crap, as every scumbag of his kind does.",
        "The committee met on Tuesday, and that friend of a chairman talked sense, as every teacher of his kind does.",
    ),
    ("I hope you die alone, you worthless piece of shit", "I hope you arrive early, you wonderful group of friends"),
    ("Get lost, you creepy pig.", "Get well, you dear man."),
    (
        "Honestly? Her cooking tastes like shit and so does everything that dumb bitch makes.",
        "Honestly? Her cooking tastes like home and so does everything that our grandmother makes.",
    ),
    (
        "1. Wash the pan. 2. Dry it. 3. Tell that idiot in the kitchen that he is a useless, brainless moron.",
        "1. Wash the pan. 2. Dry it. 3. Tell that gentleman in the kitchen that he is a welcome, honoured guest.",
    ),
    (
        "they should all be shot, those disgusting, stupid pigs",
        "they should all be washed, those delicious, ripe apples",
    ),
    (
        '"You make me sick," she screamed, "you dirty, lying, stupid whore!"',
        '"You make me happy," she answered, "you merry, singing, clever child!"',
    ),
    (
        "If you come near my house again I will break your stupid legs, you hear me, asshole?",
        "If you come near my house again I will lend you the ladder, you know that, neighbour?",
    ),
    ("lol what a dumbass", "lol what a sunset"),
    (
        "In my opinion the new mayor is a brainless idiot and a greedy, crooked bastard.",
        "In my opinion the new mayor is a sensible planner and a modest, honest man.",
    ),
    (
        "Nobody wants you here; crawl back into your hole, you stupid, miserable piece of trash",
        "Nobody needs help here; walk back into your office, you busy, diligent man of letters",
    ),
    ("Damn you and your whole stinking, fucking family!", "Thank you and your whole charming, cheerful family!"),
    (
        "It rained all day, and the morons on the radio, too stupid to read a map, told us to go to the damn beach.",
        "It rained all day, and the speakers on the radio, too busy to read a map, told us to go to the old museum.",
    ),
    ("Your brother is a crazy, ugly, pathetic loser.", "Your brother is a gifted, quiet, patient painter."),
    ("fuck off and leave us alone", "move on and leave us room"),
    (
        "To the editor: your reporter is a lying, stupid asshole who ought to choke on his own crap. Yours, T. Brown",
        "To the editor: your reporter is a careful, honest writer who ought to report on his own town. Yours, T. Brown",
    ),
    ("Eat shit!", "Eat fish!"),
    (
        "People like you are garbage, and I hate every fucking one of you.",
        "Songs like this are lovely, and I know every single one of them.",
    ),
    (
        "@maria you dumb clown, nobody asked for your stupid crap",
        "@maria you dear friend, nobody asked for your concert ticket",
    ),
)
"""Rude sentence, plain twin."""
RUDE, PLAIN = zip(*PAIRS, strict=True)
