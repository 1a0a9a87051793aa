// Follows a broker's log over HTTP with Go's own packages for transparency logs, and says what it could verify.
//
// Usage: interop URL VERIFIER-KEY < KEPT-CHECKPOINT, with the credential of an auditor in STINT_CREDENTIAL.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Of tlog-tiles: 256 hashes in a tile.
const tileHeight = 8

func main() {
	if len(os.Args) != 3 {
		fail(errors.New("usage: interop URL VERIFIER-KEY < KEPT-CHECKPOINT"))
	}
	kept, err := io.ReadAll(os.Stdin)
	if err != nil {
		fail(err)
	}
	log := &log{url: os.Args[1], credential: os.Getenv("STINT_CREDENTIAL"), tiles: map[string][]byte{}}
	report, err := follow(log, os.Args[2], kept)
	if err != nil {
		fail(err)
	}
	json.NewEncoder(os.Stdout).Encode(report)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

type report struct {
	Origin     string `json:"origin"`
	Size       int64  `json:"size"`
	Kept       int64  `json:"kept"`
	Entries    int64  `json:"entries"`
	Tiles      int    `json:"tiles"`
	Signatures int    `json:"signatures"`
	Others     int    `json:"unverified_signatures"`
}

func follow(log *log, key string, keptNote []byte) (*report, error) {
	served, err := log.get("/log/key", false)
	if err != nil {
		return nil, err
	}
	if string(served) != key+"\n" {
		return nil, fmt.Errorf("the broker's key is %q", served)
	}
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return nil, err
	}
	newestNote, err := log.get("/log/checkpoint", false)
	if err != nil {
		return nil, err
	}
	newest, opened, err := openCheckpoint(newestNote, verifier)
	if err != nil {
		return nil, fmt.Errorf("the newest checkpoint: %w", err)
	}
	kept, _, err := openCheckpoint(keptNote, verifier)
	if err != nil {
		return nil, fmt.Errorf("the kept checkpoint: %w", err)
	}

	reader := tlog.TileHashReader(newest, log)
	growth, err := tlog.ProveTree(newest.N, kept.N, reader)
	if err != nil {
		return nil, fmt.Errorf("consistency: %w", err)
	}
	if err := tlog.CheckTree(growth, newest.N, newest.Hash, kept.N, kept.Hash); err != nil {
		return nil, fmt.Errorf("consistency: %w", err)
	}
	if tlog.CheckTree(growth, newest.N, newest.Hash, kept.N, tlog.RecordHash(nil)) == nil {
		return nil, errors.New("a proof of consistency holds for another tree")
	}

	var index int64
	for index < newest.N {
		entries, err := log.readBundle(index/(1<<tileHeight), min(newest.N-index, 1<<tileHeight))
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			proof, err := tlog.ProveRecord(newest.N, index, reader)
			if err != nil {
				return nil, fmt.Errorf("entry %d: %w", index, err)
			}
			if err := tlog.CheckRecord(proof, newest.N, newest.Hash, index, tlog.RecordHash(entry)); err != nil {
				return nil, fmt.Errorf("entry %d: %w", index, err)
			}
			if tlog.CheckRecord(proof, newest.N, newest.Hash, index, tlog.RecordHash(append(entry, ' '))) == nil {
				return nil, fmt.Errorf("entry %d: its proof holds for another", index)
			}
			index++
		}
	}
	return &report{strings.TrimSuffix(strings.SplitAfter(opened.Text, "\n")[0], "\n"), newest.N, kept.N, index, len(log.tiles), len(opened.Sigs), len(opened.UnverifiedSigs)}, nil
}

// openCheckpoint verifies a note and reads the tree that it is about.
func openCheckpoint(text []byte, verifier note.Verifier) (tlog.Tree, *note.Note, error) {
	opened, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, nil, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, nil, fmt.Errorf("no checkpoint of %s: %q", verifier.Name(), opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, nil, err
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return tlog.Tree{}, nil, fmt.Errorf("no root: %q", lines[2])
	}
	return tlog.Tree{N: size, Hash: tlog.Hash(root)}, opened, nil
}

// log is a tlog.TileReader of a broker's log.
type log struct {
	url, credential string
	tiles           map[string][]byte
}

func (l *log) Height() int { return tileHeight }

func (l *log) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, tile := range tiles {
		// Go's paths name the height, which tlog-tiles leaves out.
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", tileHeight), "/log/tile/", 1)
		if _, known := l.tiles[path]; !known {
			fetched, err := l.get(path, false)
			if err != nil {
				return nil, err
			}
			l.tiles[path] = fetched
		}
		data[i] = l.tiles[path]
	}
	return data, nil
}

func (l *log) SaveTiles([]tlog.Tile, [][]byte) {}

// readBundle returns the entries of a bundle of that width.
func (l *log) readBundle(n, width int64) ([][]byte, error) {
	tile := tlog.Tile{H: tileHeight, L: 0, N: n, W: int(width)}
	path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/0/", tileHeight), "/log/tile/entries/", 1)
	bundle, err := l.get(path, true)
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(bundle) > 0 {
		if len(bundle) < 2 || len(bundle)-2 < int(binary.BigEndian.Uint16(bundle)) {
			return nil, fmt.Errorf("%s ends within an entry", path)
		}
		end := 2 + int(binary.BigEndian.Uint16(bundle))
		entries = append(entries, bundle[2:end:end])
		bundle = bundle[end:]
	}
	if int64(len(entries)) != width {
		return nil, fmt.Errorf("%s has %d entries", path, len(entries))
	}
	return entries, nil
}

func (l *log) get(path string, asAuditor bool) ([]byte, error) {
	request, err := http.NewRequest("GET", l.url+path, nil)
	if err != nil {
		return nil, err
	}
	if asAuditor {
		request.Header.Set("Authorization", "Bearer "+l.credential)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s: %s", path, response.Status, body)
	}
	return body, err
}
