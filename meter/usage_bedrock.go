package meter

import (
	"encoding/json"
)

type bedrockUsage struct {
	Input      count `json:"inputTokens"`
	Output     count `json:"outputTokens"`
	CacheRead  count `json:"cacheReadInputTokens"`
	CacheWrite count `json:"cacheWriteInputTokens"`
}

func readBedrock(s *state, data []byte, _ bool) error {
	type response struct {
		Usage    bedrockUsage `json:"usage"`
		Metadata struct {
			Usage bedrockUsage `json:"usage"`
		} `json:"metadata"`
	}
	var event response
	if err := json.Unmarshal(data, &event); err != nil {
		return err
	}
	s.set(event.Usage, true)
	s.set(event.Metadata.Usage, true)
	return nil
}

func (u bedrockUsage) said() bool { return u.Input.said || u.Output.said }

func (u bedrockUsage) tokens() (Tokens, error) {
	var cs counts
	t := Tokens{
		InputTokens:      cs.need("inputTokens", u.Input),
		OutputTokens:     cs.need("outputTokens", u.Output),
		CacheReadTokens:  cs.may("cacheReadInputTokens", u.CacheRead),
		CacheWriteTokens: cs.may("cacheWriteInputTokens", u.CacheWrite),
	}
	if err := cs.err(); err != nil {
		return Tokens{}, err
	}
	return t, nil
}
