/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The search of the documentation. It needs no server: the index is a script, search-index.js, which is
 * loaded when somebody begins to search, also from files. Without this script the field stays hidden,
 * and the header links to the page of keywords instead.
 */
"use strict";

var aregSearch = (function () {
	var RESULTS_MAX = 20;
	/* The weight of a word: as a whole word, and as the beginning of a longer one. */
	var LABEL = [20, 10], TITLE = [8, 4], TEXT = [2, 1];
	/* Extra weight: all words of a label are in the query; the label is the query; the entry is a page. */
	var ALL_OF_IT = 15, THE_SAME = 50, PAGE = 3;

	/* As words_of() in Index.pm, which made the index. */
	function words(text) {
		return text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) || [];
	}

	function parts(text) {
		var all = [];
		words(text).forEach(function (word) {
			all.push(word);
			if (word.indexOf("_") >= 0)
				all = all.concat(word.split("_").filter(Boolean));
		});
		return all;
	}

	/* The best that a word does among others: whole, as the beginning of one, or 0. */
	function match(wanted, among, weights) {
		var best = 0;
		among.forEach(function (word) {
			if (word === wanted)
				best = Math.max(best, weights[0]);
			else if (word.startsWith(wanted))
				best = Math.max(best, weights[1]);
		});
		return best;
	}

	/* Whether each word of a label begins with one that is wanted. */
	function isAllOf(label, wanted) {
		return label.length > 0 && label.every(function (word) {
			return wanted.some(function (begin) { return word.startsWith(begin); });
		});
	}

	/* Entry number => weight, for those whose text has a word that begins with the wanted one. */
	function inTexts(index, wanted) {
		var found = new Map(), low = 0, high = index.words.length;

		/* Words are sorted by their code points, as < compares them here. */
		while (low < high) {
			var middle = (low + high) >> 1;
			if (index.words[middle][0] < wanted)
				low = middle + 1;
			else
				high = middle;
		}
		for (; low < index.words.length && index.words[low][0].startsWith(wanted); low++) {
			var row = index.words[low], weight = TEXT[row[0] === wanted ? 0 : 1], number = 0;
			for (var i = 1; i < row.length; i++) {
				number += row[i];
				found.set(number, Math.max(weight, found.get(number) || 0));
			}
		}
		return found;
	}

	/*
	 * What has all words of the query, the best first: a list of {url, label, page}, urls relative to
	 * the folder of the documentation. A word may stand in the title of the page instead, but not all.
	 */
	function find(index, query) {
		var wanted = words(query), results = [];

		if (wanted.length === 0)
			return results;
		var texts = wanted.map(function (word) { return inTexts(index, word); });
		var titles = index.pages.map(function (page) {
			var title = parts(page[1]);
			return wanted.map(function (word) { return match(word, title, TITLE); });
		});
		index.entries.forEach(function (entry, number) {
			/* A page is called by its title, and that of a problem code by the code, too. */
			var labels = [entry[2], entry[3]].map(parts), title = titles[entry[0]];
			var all = labels[0].concat(labels[1]), weight = 0, own = false;

			for (var i = 0; i < wanted.length; i++) {
				var here = Math.max(match(wanted[i], all, LABEL), texts[i].get(number) || 0);
				if (here === 0 && title[i] === 0)
					return;
				own = own || here > 0;
				weight += Math.max(here, title[i]);
			}
			if (!own)
				return;
			if (labels.some(function (label) { return isAllOf(label, wanted); }))
				weight += ALL_OF_IT;
			if ([entry[2], entry[3]].some(function (label) { return words(label).join(" ") === wanted.join(" "); }))
				weight += THE_SAME;
			if (entry[1] === "")
				weight += PAGE;
			results.push({
				url: index.pages[entry[0]][0] + (entry[1] === "" ? "" : "#" + entry[1]),
				label: entry[3] === "" ? entry[2] : entry[3] + ": " + entry[2],
				page: index.pages[entry[0]][1], weight: weight, number: number
			});
		});
		results.sort(function (a, b) { return b.weight - a.weight || a.number - b.number; });
		return results.slice(0, RESULTS_MAX);
	}

	/* ---- The page ---- */

	/* Loads the index once; calls `then` when it is there, or `failed`. */
	function load(base, then, failed) {
		if (typeof aregSearchIndex !== "undefined") {
			then();
			return;
		}
		var script = document.getElementById("search-index");
		if (script === null) {
			script = document.createElement("script");
			script.id = "search-index";
			script.src = base + "search-index.js";
			document.head.appendChild(script);
		}
		script.addEventListener("load", then, { once: true });
		script.addEventListener("error", function () { script.remove(); failed(); }, { once: true });
	}

	function start() {
		var form = document.getElementById("site-search"), field = form.querySelector("input");
		var base = form.getAttribute("data-base");
		var panel = form.appendChild(document.createElement("div"));
		var status = panel.appendChild(document.createElement("p"));
		var list = panel.appendChild(document.createElement("ol"));

		function close() {
			list.replaceChildren();
			status.textContent = "";
			form.classList.remove("open");
		}

		function failed() {
			status.textContent = "The index cannot be loaded: see the page of keywords.";
			form.classList.add("open");
		}

		/* Names and titles go in as text, never as HTML. */
		function show() {
			var results = find(aregSearchIndex, field.value);

			list.replaceChildren();
			results.forEach(function (result) {
				var link = document.createElement("a"), page = document.createElement("span");
				link.href = base + result.url;
				link.textContent = result.label;
				if (!result.label.endsWith(result.page)) {
					page.textContent = result.page;
					link.append(" ", page);
				}
				list.appendChild(document.createElement("li")).appendChild(link);
			});
			status.textContent = words(field.value).length === 0 ? ""
				: results.length === 0 ? "Nothing has all these words."
				: results.length === RESULTS_MAX ? "The best " + RESULTS_MAX + ":"
				: results.length === 1 ? "1 result:" : results.length + " results:";
			form.classList.toggle("open", status.textContent !== "");
		}

		/* Goes up and down in the results, from the field and back to it. */
		function step(distance) {
			var stops = [field].concat(Array.from(list.querySelectorAll("a")));
			var at = stops.indexOf(document.activeElement) + distance;

			if (at >= 0 && at < stops.length)
				stops[at].focus();
		}

		field.addEventListener("focus", function () { load(base, function () {}, failed); });
		field.addEventListener("input", function () { load(base, show, failed); });
		form.addEventListener("submit", function (event) {
			event.preventDefault();
			load(base, function () {
				show();
				var first = list.querySelector("a");
				if (first !== null)
					first.click();
			}, failed);
		});
		form.addEventListener("keydown", function (event) {
			if (event.key === "ArrowDown" || event.key === "ArrowUp") {
				event.preventDefault();
				step(event.key === "ArrowDown" ? 1 : -1);
			} else if (event.key === "Escape") {
				field.value = "";
				close();
				field.focus();
			}
		});
		list.addEventListener("click", close);
		document.addEventListener("keydown", function (event) {
			var typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);

			if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
				event.preventDefault();
				field.focus();
			}
		});
		document.addEventListener("click", function (event) {
			if (!form.contains(event.target))
				form.classList.remove("open");
		});
		field.addEventListener("focus", function () {
			form.classList.toggle("open", status.textContent !== "");
		});
		status.setAttribute("role", "status");
		document.getElementById("site-keywords").hidden = true;
		form.hidden = false;
	}

	if (typeof document !== "undefined")
		start();
	return { find: find };
})();
