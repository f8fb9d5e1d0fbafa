package testspec

// filters is the table of filters. A new one is a new line here: validation, documents and messages follow.
var filters = []FilterInfo{
	{
		Name: "count", Takes: anyList | KindBytes, Yields: KindNumber, Argument: ArgumentNothing, whole: true, apply: filterCount,
		Doc: "How many members a list, or how many bytes the value has.",
	},
	{
		Name: "length", Takes: anyText | KindList | KindBytes, Yields: KindNumber, Argument: ArgumentNothing, whole: true, apply: filterLength,
		Doc: "The characters of text, the bytes of bytes, the members of a list or an object.",
	},
	{
		Name: "first", Takes: anyList, Yields: KindJSON | KindText, Argument: ArgumentNothing, whole: true,
		apply: func(f *filtering, v value, _ any) value { return filterNth(f, v, jsonNumber("0")) },
		Doc:   "The first member of a list; nothing when it is empty.",
	},
	{
		Name: "last", Takes: anyList, Yields: KindJSON | KindText, Argument: ArgumentNothing, whole: true,
		apply: func(f *filtering, v value, _ any) value { return filterNth(f, v, jsonNumber("-1")) },
		Doc:   "The last member of a list; nothing when it is empty.",
	},
	{
		Name: "nth", Takes: anyList, Yields: KindJSON | KindText, Argument: ArgumentIndex, whole: true, apply: filterNth,
		Doc: "The member of a list at that place, the first at 0, the last at -1; nothing when there is none.",
	},
	{
		Name: "unique", Takes: anyList, Yields: KindList, Argument: ArgumentNothing, whole: true, apply: filterUnique,
		Doc: "A list without the members that equal an earlier one.",
	},
	{
		Name: "keys", Takes: KindJSON, Yields: KindList, Argument: ArgumentNothing, apply: filterKeys,
		Doc: "The keys of an object, a list in alphabetical order.",
	},
	{
		Name: "values", Takes: KindJSON, Yields: KindList, Argument: ArgumentNothing, apply: filterValues,
		Doc: "The values of an object, a list in the alphabetical order of their keys.",
	},
	{
		Name: "join", Takes: anyList, Yields: KindText, Argument: ArgumentText, whole: true, apply: filterJoin,
		Doc: "The members of a list as one text, the argument between them.",
	},
	{
		Name: "split", Takes: anyText, Yields: KindList, Argument: ArgumentText, apply: filterSplit,
		Doc: "The parts of text between each place where the argument stands, a list of texts.",
	},
	{
		Name: "regex", Takes: anyText, Yields: KindText, Argument: ArgumentPattern, costly: true, apply: filterRegex,
		Doc: "What the regular expression finds first: its group named `value`, else its first group, else the whole match; nothing when there is no match.",
	},
	{
		Name: "replace", Takes: anyText, Yields: KindText, Argument: ArgumentReplace, apply: filterReplace,
		Doc: "Text with each `from` replaced by `to`.",
	},
	{
		Name: "replaceRegex", Takes: anyText, Yields: KindText, Argument: ArgumentReplaceRE2, costly: true, apply: filterReplaceRegex,
		Doc: "Text with each match of `pattern` replaced by `to`, in which `$1` or `${name}` is what a group found.",
	},
	{
		Name: "jsonpath", Takes: KindText | KindJSON | KindList, Yields: KindJSON, Argument: ArgumentPath, whole: true, costly: true, apply: filterJSONPath,
		Doc: "What a JSONPath selects, as the source of this name has it; text is read as JSON.",
	},
	{
		Name: "xpath", Takes: KindText | KindJSON, Yields: kindsOfXPath, Argument: ArgumentXPath, costly: true, apply: filterXPath,
		Doc: "What an XPath selects from text, which is read as XML when it begins with `<?xml`, else as HTML.",
	},
	{
		Name: "css", Takes: KindText | KindJSON, Yields: KindText | KindList, Argument: ArgumentCSS, costly: true, apply: filterCSS,
		Doc: "What a CSS selector selects from text, which is read as HTML.",
	},
	{
		Name: "urlDecode", Takes: anyText, Yields: KindText, Argument: ArgumentNothing, apply: filterURLDecode,
		Doc: "Text with percent-encoding undone; + stays.",
	},
	{
		Name: "urlEncode", Takes: anyText, Yields: KindText, Argument: ArgumentNothing, apply: filterURLEncode,
		Doc: "Text with all but letters, digits and `-._~` percent-encoded.",
	},
	{
		Name: "urlQueryParam", Takes: anyText, Yields: KindText, Argument: ArgumentText, apply: filterURLQueryParam,
		Doc: "The value of the first query parameter of that name in a URL; nothing when there is none.",
	},
	{
		Name: "location", Takes: KindJSON | KindList, Yields: KindText, Argument: ArgumentNothing, apply: filterLocation,
		Doc: "Where a redirect leads: the `location` of an object of the source redirects.",
	},
	{
		Name: "base64Decode", Takes: anyText, Yields: KindText | KindBytes, Argument: ArgumentNothing, apply: base64Decoder(false),
		Doc: "What base64 stands for, with or without its padding: text when that is UTF-8, else bytes.",
	},
	{
		Name: "base64Encode", Takes: anyText | KindBytes, Yields: KindText, Argument: ArgumentNothing, apply: base64Encoder(false),
		Doc: "Text (as UTF-8) or bytes in base64.",
	},
	{
		Name: "base64UrlSafeDecode", Takes: anyText, Yields: KindText | KindBytes, Argument: ArgumentNothing, apply: base64Decoder(true),
		Doc: "The same of base64url.",
	},
	{
		Name: "base64UrlSafeEncode", Takes: anyText | KindBytes, Yields: KindText, Argument: ArgumentNothing, apply: base64Encoder(true),
		Doc: "The same in base64url, without padding.",
	},
	{
		Name: "htmlEscape", Takes: anyText, Yields: KindText, Argument: ArgumentNothing, apply: filterHTMLEscape,
		Doc: "Text with `& < > \" '` written as HTML's references.",
	},
	{
		Name: "htmlUnescape", Takes: anyText, Yields: KindText, Argument: ArgumentNothing, apply: filterHTMLUnescape,
		Doc: "Text with HTML's references such as `&amp;` undone.",
	},
	{
		Name: "toHex", Takes: anyText | KindBytes, Yields: KindText, Argument: ArgumentNothing, apply: filterToHex,
		Doc: "Text (as UTF-8) or bytes in small hexadecimal digits.",
	},
	{
		Name: "hexDecode", Takes: anyText, Yields: KindText | KindBytes, Argument: ArgumentNothing, apply: filterHexDecode,
		Doc: "What hexadecimal digits stand for: text when that is UTF-8, else bytes.",
	},
	{
		Name: "utf8Encode", Takes: anyText, Yields: KindBytes, Argument: ArgumentNothing, apply: filterUTF8Encode,
		Doc: "The bytes of text in UTF-8.",
	},
	{
		Name: "utf8Decode", Takes: KindBytes | anyText, Yields: KindText, Argument: ArgumentNothing, apply: filterUTF8Decode,
		Doc: "Bytes as text; what is not UTF-8 fails.",
	},
	{
		Name: "decode", Takes: KindBytes | anyText, Yields: KindText, Argument: ArgumentCharset, apply: filterDecode,
		Doc: "Bytes as text in that charset.",
	},
	{
		Name: "toInt", Takes: KindNumber | anyText, Yields: KindNumber, Argument: ArgumentNothing, apply: filterToInt,
		Doc: "Text that is a whole number as a number; a number without its fraction.",
	},
	{
		Name: "toFloat", Takes: KindNumber | anyText, Yields: KindNumber, Argument: ArgumentNothing, apply: filterToFloat,
		Doc: "Text that is a number as a number, exact.",
	},
	{
		Name: "toString", Takes: KindNumber | anyText | KindBytes, Yields: KindText, Argument: ArgumentNothing, apply: filterToString,
		Doc: "Any value as text: a number as it was written, true, false and null by these words, an object as JSON.",
	},
	{
		Name: "toDate", Takes: KindNumber | anyText, Yields: KindDate, Argument: ArgumentDateForm, apply: filterToDate,
		Doc: "Text as a date: RFC 3339, ISO 8601 or HTTP's form, or the one that the argument says; a number as seconds since 1970. " +
			"Without an offset it is UTC.",
	},
	{
		Name: "formatDate", Takes: anyText, Yields: KindText, Argument: ArgumentFormat, apply: filterFormatDate,
		Doc: "A date in UTC as text of that format, in the manner of strftime: %Y year, %m month, %d day, %H %M %S time, %j day of the year, %s seconds since 1970 and so on.",
	},
	{
		Name: "daysAfterNow", Takes: anyText, Yields: KindNumber, Argument: ArgumentNothing, apply: filterDaysAfterNow,
		Doc: "Whole days from now until a date, below 0 when it is past.",
	},
	{
		Name: "daysBeforeNow", Takes: anyText, Yields: KindNumber, Argument: ArgumentNothing, apply: filterDaysBeforeNow,
		Doc: "Whole days from a date until now, below 0 when it is to come.",
	},
	{
		Name: "lower", Takes: anyText, Yields: KindText, Argument: ArgumentNothing, apply: filterLower,
		Doc: "Text in small letters.",
	},
	{
		Name: "upper", Takes: anyText, Yields: KindText, Argument: ArgumentNothing, apply: filterUpper,
		Doc: "Text in capitals.",
	},
	{
		Name: "trim", Takes: anyText, Yields: KindText, Argument: ArgumentNothing, apply: filterTrim,
		Doc: "Text without white space at its ends.",
	},
}
