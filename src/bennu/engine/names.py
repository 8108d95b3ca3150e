"""Names for unnamed containers: a mood and a bird."""

import random
from typing import Final

MOOD_WORDS: Final = (
    "agile amber amused ancient ardent austere awake bashful blithe bold breezy bright brisk calm candid careful "
    "cheerful civil clever coy crisp curious daring dapper dazed deft dreamy drowsy eager earnest elated fabled "
    "fearless festive fierce fleet fond frank free frosty gallant gentle giddy glad gleeful golden graceful grand "
    "grateful hardy hasty hearty honest hopeful humble idle jaunty jolly jovial keen kind lively lofty loyal lucid "
    "lucky mellow merry mild mindful misty modest musing neat nimble noble observant pacific patient pensive placid "
    "playful plucky poised polite proud prudent punctual quaint quick quiet radiant rapid ready regal resolute rested "
    "robust rosy rustic sage sandy serene shy silent silver sincere sleek sleepy sober solemn spry stable steady "
    "stoic sturdy sunny supple swift tactful tame tender thrifty tidy tranquil trusty upbeat valiant vivid wakeful "
    "wary watchful whimsical willing wise wistful witty zealous"
)

BIRD_WORDS: Final = (
    "albatross auk avocet barbet bittern bluebird booby brambling bulbul bunting bustard buzzard canary cardinal "
    "chaffinch chickadee chough condor coot cormorant corncrake crane crossbill cuckoo curlew dipper diver dotterel "
    "dove dunlin dunnock eagle egret eider falcon fieldfare finch flamingo frigatebird fulmar gadwall gannet garganey "
    "godwit goldcrest goldeneye goldfinch goosander goshawk grebe greenfinch guillemot harrier hawfinch hawk heron "
    "hobby hoopoe hornbill hummingbird ibis jacana jackdaw jay kestrel kingfisher kinglet kite kittiwake kiwi knot "
    "lapwing lark linnet lorikeet lyrebird macaw magpie mallard martin merganser merlin mockingbird moorhen motmot "
    "myna nightingale nightjar nuthatch oriole osprey ostrich ouzel owl oystercatcher parakeet partridge peafowl "
    "pelican penguin peregrine petrel phoebe pigeon pintail pipit plover pochard ptarmigan puffin quail quetzal raven "
    "razorbill redpoll redshank redstart redwing rhea roadrunner robin roller rook ruff sanderling sandpiper scoter "
    "serin shearwater shelduck shoveler shrike siskin skua skylark smew snipe sparrow spoonbill starling stilt stint "
    "stonechat stork sunbird swallow swan swift tanager teal tern thrasher thrush toucan treecreeper trogon turaco "
    "turnstone twite vireo vulture wagtail warbler waxwing weaver wheatear whimbrel whinchat wigeon woodcock "
    "woodlark woodpecker wren wryneck yellowhammer"
)

MOODS: Final = MOOD_WORDS.split()
BIRDS: Final = BIRD_WORDS.split()


def random_name() -> str:
    return f"{random.choice(MOODS)}_{random.choice(BIRDS)}"
