package account

import (
	"math"
	"strings"
	"sync"
	"unicode"

	"github.com/trustelem/zxcvbn/frequency"
)

// famous are phrases and passwords that everybody has read somewhere: whoever guesses tries them early, whatever an
// estimate by words says of them. They are written without separators; people write them with any.
var famous = []string{
	"correcthorsebatterystaple", "correcthorsebattery", "troubador3", "troubador", "troubadour", "hunter2", "trustnoone", "trustno1",
	"thequickbrownfoxjumpsoverthelazydog", "thequickbrownfox", "jumpsoverthelazydog", "loremipsumdolorsitamet", "loremipsumdolor", "loremipsum",
	"maytheforcebewithyou", "maytheforce", "tobeornottobe", "tobeornottobethatisthequestion", "thatisthequestion", "winteriscoming",
	"iamyourfather", "lukeiamyourfather", "helloworld", "hellodarknessmyoldfriend", "welcometothejungle", "welcometohell", "iwanttobreakfree", "letitgo",
	"iwillalwaysloveyou", "dontstopmenow", "anotherbrickinthewall", "stairwaytoheaven", "highwaytohell", "smellsliketeenspirit", "letitbe",
	"allyouneedislove", "onceuponatime", "happilyeverafter", "neveragain", "nevergonnagiveyouup", "opensesame", "opensaysme", "abracadabra", "shazam",
	"supercalifragilisticexpialidocious", "hakunamatata", "hastalavistababy", "illbeback", "elementarymydearwatson", "livelongandprosper",
	"houstonwehaveaproblem", "onesmallstepforman", "wethepeople", "ihaveadream", "yeswecan", "makeamericagreatagain", "ingodwetrust", "godblessamerica",
	"jesuslovesme", "ourfatherwhoartinheaven", "inthebeginning", "themeaningoflife", "ihatepasswords", "passwordispassword",
	"thisismypassword", "mypasswordissecure", "iforgotmypassword", "whatsmypassword", "enteryourpassword", "changethispassword", "temporarypassword",
	"newpassword", "defaultpassword", "strongpassword", "securepassword", "secretpassword", "thisisasecret", "donttellanyone", "letmein", "letmeinplease",
	"changeme", "changemeplease", "iloveyou", "iloveyousomuch", "iamtheadmin", "openthedoor", "computerscience", "goodmorning", "goodnight",
	"daspasswort", "meinpasswort", "ichliebedich", "motdepasse", "monmotdepasse", "jetaime", "contrasena", "micontrasena", "tequiero", "teamo",
}

const (
	// fewGuesses is how many guesses, as a power of ten, are too few for a password that is made of common words: at 50 a
	// second and core, which is what argon2id leaves, some 200 days of one core.
	fewGuesses = 9.0
	// commonWords of each list are known.
	commonWords = 5000
	// longestWord of them is looked for.
	longestWord = 20
	// perLetter, perDigit and perSign are what a character outside of words adds, as a power of ten.
	perLetter, perDigit, perSign = 1.41, 1.0, 1.52
	// aYear is what one of the last or this century adds.
	aYear = 2.0
)

// ranks says how early a word is tried: the logarithm of its place in the lists of passwords, words and names.
var ranks = sync.OnceValue(func() map[string]float64 {
	known := make(map[string]float64, 6*commonWords)
	for _, list := range frequency.FrequencyLists {
		for i, word := range list[:min(len(list), commonWords)] {
			rank := math.Log10(float64(i + 2))
			if old, ok := known[word]; !ok || rank < old {
				known[word] = rank
			}
		}
	}
	return known
})

// leet turns signs that people write for letters back into these; a digit may also be itself.
var leet = strings.NewReplacer("0", "o", "1", "i", "3", "e", "4", "a", "5", "s", "7", "t", "8", "b", "@", "a", "$", "s", "!", "i", "|", "l", "+", "t", "(", "c")

// commonplace reports whether the lower-case password is a famous phrase with little else, or so few common words that
// somebody who tries these finds it soon. words are those of the person: they count as the first of all.
func commonplace(folded string, words []string) bool {
	return soonFound(folded, words) || soonFound(leet.Replace(folded), words)
}

func soonFound(text string, words []string) bool {
	bare := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || strings.ContainsRune("-_.,;:'", r) {
			return -1
		}
		return r
	}, text)
	for _, phrase := range famous {
		bare = strings.ReplaceAll(bare, phrase, "\x00")
	}
	own := make(map[string]bool, len(words))
	for _, w := range words {
		own[strings.ToLower(w)] = true
	}
	return guesses([]rune(bare), own) < fewGuesses
}

// guesses is the power of ten of the guesses for a text as the cheapest row of common words, of the person's own, of
// famous phrases (each one NUL) and of single characters.
func guesses(text []rune, own map[string]bool) float64 {
	known := ranks()
	best := make([]float64, len(text)+1)
	for end := 1; end <= len(text); end++ {
		best[end] = best[end-1] + costOf(text, end-1)
		for start := max(0, end-longestWord); start < end; start++ {
			word := string(text[start:end])
			rank, ok := known[word]
			if own[word] {
				rank, ok = 0, true
			}
			if len(word) == 4 && (strings.HasPrefix(word, "19") || strings.HasPrefix(word, "20")) && strings.Trim(word, "0123456789") == "" {
				rank, ok = aYear, true
			}
			if ok {
				best[end] = min(best[end], best[start]+rank)
			}
		}
	}
	return best[len(text)]
}

// costOf is what the character at i adds outside of words: one that goes on from those before it adds little.
func costOf(text []rune, i int) float64 {
	r := text[i]
	if i > 0 && (r == text[i-1] || r == text[i-1]+1 || r == text[i-1]-1) {
		return 0.3
	}
	switch {
	case r == 0:
		return 1
	case unicode.IsDigit(r):
		return perDigit
	case unicode.IsLetter(r):
		return perLetter
	default:
		return perSign
	}
}
